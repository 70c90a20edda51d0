import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { nvidiaBoards, whyNoGpu } from "../../src/gpu/pci-presence.ts";

function sys(devices: Record<string, { vendor: string; class: string; driver?: string }>): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-sys-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  for (const [address, device] of Object.entries(devices)) {
    const path = join(dir, "bus/pci/devices", address);
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, "vendor"), `${device.vendor}\n`);
    writeFileSync(join(path, "class"), `${device.class}\n`);
    if (device.driver !== undefined) symlinkSync(`../../../drivers/${device.driver}`, join(path, "driver"));
  }
  return dir;
}

const machine = {
  "0000:00:02.0": { vendor: "0x8086", class: "0x030000", driver: "i915" },
  "0000:01:00.0": { vendor: "0x10de", class: "0x030000", driver: "nouveau" },
  "0000:01:00.1": { vendor: "0x10de", class: "0x040300", driver: "snd_hda_intel" },
  "0000:41:00.0": { vendor: "0x10de", class: "0x030200" },
};

it("finds NVIDIA's display and compute boards and who holds them", () => {
  expect(nvidiaBoards(sys(machine))).toEqual([
    { address: "0000:01:00.0", driver: "nouveau" },
    { address: "0000:41:00.0", driver: undefined },
  ]);
  expect(nvidiaBoards("/no/such/sys")).toEqual([]);
});

it("says why no GPU is in sight", () => {
  const missing = { code: "not_found" as const, message: "nvidia-smi was not found" };
  expect(whyNoGpu([missing], [])[0]?.message).toMatch(/no NVIDIA board: this node runs workloads without GPUs$/);
  const boards = ["nouveau", "vfio-pci", undefined].map((driver, n) => ({ address: `0000:0${n}:00.0`, driver }));
  expect(whyNoGpu([missing], boards)[0]?.message).toBe(
    "nvidia-smi was not found. The NVIDIA board at 0000:00:00.0 is held by nouveau, the free driver, which cannot compute: install NVIDIA's, which keeps nouveau away. The NVIDIA board at 0000:01:00.0 is given to a virtual machine (vfio-pci). The NVIDIA board at 0000:02:00.0 has no driver",
  );
});

it("adds nothing to a problem of a GPU that is there", () => {
  const lost = { code: "gpu_lost" as const, message: "one is lost" };
  expect(whyNoGpu([lost], [])).toEqual([lost]);
});
