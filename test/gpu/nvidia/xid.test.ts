import { describe, expect, it } from "vitest";
import { busOf, isDriverLoad, readSXid, readXid, XIDS } from "../../../src/gpu/nvidia/xid.ts";
import { fixture, haveFixtures } from "../../support/fixtures.ts";

describe("an Xid", () => {
  it.each([
    ["NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python, GPU has fallen off the bus.", "0000:3b:00", 79, "reboot"],
    ["NVRM: Xid (PCI:0000:01:00): 31, pid=99, Ch 0000000a, intr 10000000. MMU Fault", "0000:01:00", 31, "application"],
    ["[12.5] NVRM: Xid (PCI:0000:9b:00): 119, pid=2, name=nvidia-smi, Timeout after 6s", "0000:9b:00", 119, "reset"],
    ["NVRM: Xid (PCI:0008:06:00): 145, RLW_REMAP Nonfatal XC0 i0 Link 00 (0x4)", "0008:06:00", 145, "warning"],
    ["NVRM: Xid (PCI:0008:06:00): 145, RLW_CTRL Fatal XC0 i0 Link 00 (0x4)", "0008:06:00", 145, "reset"],
    ["NVRM: Xid (0000:02:00): 13, 0001 00000000", "0000:02:00", 13, "application"],
    ["NVRM: Xid (PCI:0000:02:00): 99999, who knows", "0000:02:00", 99_999, "application"],
  ])("%s", (text, bus, xid, kind) => {
    expect(readXid(text)).toMatchObject({ bus, xid, class: kind });
  });

  it("154 says what it takes to recover", () => {
    const told = (words: string) =>
      readXid(`NVRM: Xid (PCI:0009:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x4 (${words})`);
    expect(told("Drain and Reset")).toMatchObject({ recovery: "drain", class: "warning" });
    expect(told("GPU Reset Required")).toMatchObject({ recovery: "reset", class: "reset" });
    expect(told("Node Reboot Required")).toMatchObject({ recovery: "reboot", class: "reboot" });
    expect(told("None")).toMatchObject({ recovery: "none", class: "application" });
  });

  it.each([
    "",
    "usb 1-1: new device",
    "NVRM: Xid (PCI:): 79, x",
    "NVRM: Xid (PCI:0000:01:00): %d, unknown",
    "NVRM: Xid (PCI:zz): 79",
    "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.65.06",
  ])("is none: %j", (text) => {
    expect(readXid(text)).toBeUndefined();
  });

  it("puts no control characters and no more than a line into what is told", () => {
    const message = readXid(`NVRM: Xid (PCI:0000:01:00): 31, \u001b[2J${"x".repeat(5000)}`)?.message ?? "";
    expect(message).not.toContain("\u001b");
    expect(message.length).toBeLessThan(400);
  });

  it("is in the table once", () => {
    expect(new Set(XIDS.map(({ xid }) => xid)).size).toBe(XIDS.length);
  });
});

describe("an SXid", () => {
  it("is told with its severity; further data of one is passed over", () => {
    expect(readSXid("nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 62 LTSSM Fault Up")).toEqual({
      sxid: 20_034,
      isFatal: true,
      message: "NVSwitch 0: SXid 20034, Fatal: Link 62 LTSSM Fault Up",
    });
    expect(readSXid("nvidia-nvswitch1: SXid (PCI:0000:0a:00.0): 22013, Non-fatal, Link 57 Minion")).toMatchObject({
      isFatal: false,
    });
    expect(readSXid("nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Data {0x1}")).toBeUndefined();
    expect(readSXid("nvidia-nvswitch0: SXid (invalid): some error")).toBeUndefined();
  });
});

it("knows a PCI address in all spellings", () => {
  for (const spelling of ["00000000:3B:00.0", "0000:3b:00.0", "0000:3b:00", "3B:00.0"]) {
    expect(busOf(spelling)).toBe("0000:3b:00");
  }
  expect(busOf("0001:3b:00")).toBe("0001:3b:00");
  expect(busOf("3b")).toBeUndefined();
});

it("knows when the driver was loaded", () => {
  expect(isDriverLoad("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.65.06")).toBe(true);
  expect(isDriverLoad("nvidia: module license 'NVIDIA' taints kernel.")).toBe(false);
});

describe.runIf(haveFixtures)("recorded logs", () => {
  it("every Xid line with an address and a number is read, and no other line", () => {
    const text = `${fixture("kmsg/gpud-xid-lines.txt")}\n${fixture("kmsg/gpud-dmesg-with-xid-119.log")}`;
    for (const line of text.split("\n")) {
      const plain = /Xid \(PCI:([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2})\S*\): (\d+)/.exec(line);
      const read = readXid(line);
      expect(read?.xid, line).toBe(plain === null ? undefined : Number(plain[2]));
      expect(read?.bus, line).toBe(plain?.[1]);
    }
  });

  it("every SXid line with a severity is read", () => {
    for (const line of fixture("kmsg/gpud-sxid-lines.txt").split("\n")) {
      const plain = /SXid \(PCI:[0-9a-f:.]+\): (\d+), (Fatal|Non-fatal)/.exec(line);
      expect(readSXid(line)?.sxid, line).toBe(plain === null ? undefined : Number(plain[1]));
    }
  });
});
