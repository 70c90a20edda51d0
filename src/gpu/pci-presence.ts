import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename, join } from "node:path";
import type { SmiProblem } from "./nvidia/runner.ts";

/** An NVIDIA display or compute device that the machine's PCI bus has, whatever its driver. */
export interface NvidiaBoard {
  /** `0000:01:00.0` */
  address: string;
  /** Kernel driver that holds it; undefined where none does. */
  driver: string | undefined;
}

/** PCI vendor id of NVIDIA (pci-ids.ucw.cz). */
const NVIDIA = "0x10de";
/** PCI base class 03: display controllers, which 3D controllers (0302) belong to. */
const DISPLAY = /^0x03/;

/** The NVIDIA boards on the PCI bus, by sysfs; [] where there is none or no such bus. Never throws. */
export function nvidiaBoards(sysDir = "/sys"): NvidiaBoard[] {
  const devices = join(sysDir, "bus/pci/devices");
  return attempt(() => readdirSync(devices), [])
    .sort()
    .flatMap((address) => {
      const read = (name: string) => attempt(() => readFileSync(join(devices, address, name), "utf8").trim(), "");
      if (read("vendor") !== NVIDIA || !DISPLAY.test(read("class"))) return [];
      const driver = attempt(() => basename(readlinkSync(join(devices, address, "driver"))), undefined);
      return [{ address, driver }];
    });
}

/** Problems that mean no GPU is in sight at all. */
const BLIND: ReadonlySet<SmiProblem["code"]> = new Set([
  "not_found",
  "no_driver",
  "no_library",
  "no_devices",
  "failed",
]);

/**
 * The problems, the ones of a node that sees no GPU with what its PCI bus says: whether there is a board at all, and which driver holds it
 * instead of NVIDIA's.
 */
export function whyNoGpu(problems: readonly SmiProblem[], boards: readonly NvidiaBoard[]): SmiProblem[] {
  return problems.map((problem) =>
    BLIND.has(problem.code) ? { ...problem, message: `${problem.message}. ${onTheBus(boards)}` } : problem,
  );
}

function onTheBus(boards: readonly NvidiaBoard[]): string {
  if (boards.length === 0) return "The PCI bus has no NVIDIA board: this node runs workloads without GPUs";
  return boards.map(({ address, driver }) => `The NVIDIA board at ${address} ${heldBy(driver)}`).join(". ");
}

function heldBy(driver: string | undefined): string {
  switch (driver) {
    case undefined:
      return "has no driver";
    case "nouveau":
      return "is held by nouveau, the free driver, which cannot compute: install NVIDIA's, which keeps nouveau away";
    case "vfio-pci":
      return "is given to a virtual machine (vfio-pci)";
    case "nvidia":
      return "is held by NVIDIA's driver";
    default:
      return `is held by the driver ${driver}`;
  }
}

function attempt<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}
