import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import * as os from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { hostDetails } from "../../src/host/details.ts";
import { distributionOf, hostInventory } from "../../src/host/inventory.ts";
import { bootId, createHostSampler, diskFreeMiB, memoryAvailableMiB } from "../../src/host/sampler.ts";
import { HostInfo, HostTelemetry } from "../../src/protocol/agent-frames.ts";

/** A `/proc` with these files. */
function procWith(files: Record<string, string>): string {
  const dir = mkdtempSync(join(os.tmpdir(), "gpunode-proc-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) writeProc(dir, name, text);
  return dir;
}

function writeProc(dir: string, name: string, text: string): void {
  mkdirSync(dirname(join(dir, name)), { recursive: true });
  writeFileSync(join(dir, name), text);
}

describe("inventory", () => {
  it("tells what this machine is", async () => {
    const info = hostInventory();
    expect(HostInfo.parse(info)).toEqual(info);
    expect(info.hostname).toBe(os.hostname());
    expect(info.cpus).toBe(os.cpus().length);
    expect(info.memoryMiB).toBe(Math.floor(os.totalmem() / 2 ** 20));
    expect(["amd64", "arm64"]).toContain(info.architecture);
    expect(info.diskTotalMiB).toBeGreaterThan(0);
    const distribution = /^NAME="?([^"\n]+)/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "";
    expect(info.os).toContain(distribution.split(" ")[0]);
  });

  it("names the distribution as os-release(5) does", async () => {
    expect(
      distributionOf('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n'),
    ).toBe("Debian GNU/Linux 12");
    expect(distributionOf("NAME='Arch Linux'\n")).toBe("Arch Linux");
    expect(distributionOf("NAME=Fedora\nVERSION_ID=41\n")).toBe("Fedora 41");
    expect(distributionOf('NAME=""\nVERSION_ID=3\n')).toBeUndefined();
    expect(hostInventory({ osRelease: "/no/such/file" })).toMatchObject({ os: "Linux", kernel: os.release() });
  });

  it("names the CPU as the kernel does, or not at all", () => {
    const named = [{ model: "Intel(R) Xeon(R)  Platinum 8481C CPU @ 2.70GHz" }];
    expect(hostInventory({ cpus: named }).cpuModel).toBe("Intel Xeon Platinum 8481C CPU @ 2.70GHz");
    for (const model of ["unknown", " "])
      expect(hostInventory({ cpus: [{ model }, { model }] })).not.toHaveProperty("cpuModel");
  });

  it("is told more by systeminformation, which names the same system", async () => {
    const details = await hostDetails();
    expect(HostInfo.pick({ os: true, kernel: true, cpuModel: true }).parse(details)).toEqual(details);
    expect(details.kernel).toBe(os.release());
    expect(details.cpuModel).toMatch(/\S/);
  });

  it("does without a disk that is not there", async () => {
    expect(hostInventory({ diskPath: "/no/such/place" })).not.toHaveProperty("diskTotalMiB");
  });
});

describe("sampler", () => {
  it("reads this machine within the contract", () => {
    const sampler = createHostSampler({ diskPath: "/" });
    const first = sampler.sample();
    expect(HostTelemetry.parse(first)).toEqual(first);
    expect(first).not.toHaveProperty("cpuPercent");
    expect(first.memoryTotalMiB).toBe(Math.floor(os.totalmem() / 2 ** 20));
    expect(first.memoryUsedMiB).toBeLessThan(first.memoryTotalMiB ?? 0);
  });

  it("tells the CPU's load between two samples", () => {
    const proc = procWith({ stat: "cpu  100 0 0 100 0 0 0 0 0 0\n" });
    const sampler = createHostSampler({ diskPath: "/", procDir: proc });
    sampler.sample();
    writeProc(proc, "stat", "cpu  125 0 0 175 0 0 0 0 0 0\n");
    expect(sampler.sample().cpuPercent).toBe(25);
    expect(sampler.sample()).not.toHaveProperty("cpuPercent");
    writeProc(proc, "stat", "cpu  10 0 0 10 0 0 0 0 0 0\n");
    expect(sampler.sample()).not.toHaveProperty("cpuPercent");
    writeProc(proc, "stat", "cpu  20 0 0 10 0 0 0 0 0 0\n");
    expect(sampler.sample().cpuPercent).toBe(100);
  });

  it("leaves out what the kernel does not tell", () => {
    const sampler = createHostSampler({ diskPath: "/no/such/place", procDir: procWith({}) });
    expect(sampler.sample()).toEqual({});
    expect(memoryAvailableMiB(procWith({ meminfo: "hostile" }))).toBeUndefined();
    expect(diskFreeMiB("/no/such/place")).toBeUndefined();
  });

  it("names the boot", () => {
    expect(bootId()).toBe(readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim());
    expect(bootId(procWith({ "sys/kernel/random/boot_id": "\n", stat: "cpu 1\nbtime 1769850000\n" }))).toBe(
      "btime-1769850000",
    );
    expect(bootId(procWith({}))).toBe("");
  });
});
