import { realpathSync } from "node:fs";
import { basename, dirname } from "node:path";
import { HealthJudge } from "../../gpu/judge.ts";
import { readInventory } from "../../gpu/nvidia/inventory.ts";
import { createSmi, type Smi } from "../../gpu/nvidia/runner.ts";
import { nvidiaBoards } from "../../gpu/pci-presence.ts";
import { ownerOfProcess } from "../../host/cgroup.ts";
import { type KernelMessage, kernelMessages } from "../../host/kernel-log.ts";
import type { DriverFacts } from "../facts.ts";
import type { FileLook, Machine } from "../machine.ts";
import type { Reader } from "./reader.ts";

/** Without persistence mode eight boards take this long to wake; a driver that hangs, for ever. */
const SMI_MS = 12_000;
const KERNEL_LOG_MS = 3_000;
/** Where distributions put the driver's libraries; the last one is a container's or an appliance's. */
const LIBRARY_FOLDERS = [
  ...["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/nvidia/lib64"],
  ...["/usr/lib/x86_64-linux-gnu/nvidia/current", "/usr/lib/aarch64-linux-gnu/nvidia/current"],
];
/** Debian calls it `nvidia-current.ko`. */
const MODULE = /(?:^|\/)nvidia(?:-(?:current|tesla|open|legacy)[^/:]*)?\.ko(?:\.\w+)?:/m;

export const driver: Reader<"driver"> = {
  after: ["system"],
  limitMs: 3_000,
  read({ machine }, had): DriverFacts {
    const boards = nvidiaBoards(machine.at("/sys"));
    const loaded = loadedVersion(machine);
    const unit = persistencedUnit(machine);
    return {
      ...(loaded !== undefined && { loaded }),
      libraries: libraryVersions(machine),
      boards,
      isNouveauLoaded: machine.look("/sys/module/nouveau") !== undefined,
      kernelsWithModule: (had("system")?.kernels ?? []).filter((kernel) =>
        MODULE.test(machine.text(`/lib/modules/${kernel}/modules.dep`) ?? ""),
      ),
      hasSecureBoot: hasSecureBoot(machine),
      devices: deviceFiles(machine),
      ...(unit !== undefined && { persistenced: { keepsOff: /--no-persistence-mode/.test(unit) } }),
      slotWidths: new Map(boards.flatMap(({ address }) => slotWidth(machine, address))),
      iommuTranslates: machine
        .names("/sys/kernel/iommu_groups")
        .some((group) => /^DMA/.test(machine.text(`/sys/kernel/iommu_groups/${group}/type`) ?? "")),
    };
  },
};

/** `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  …`; the open one says `Open Kernel Module for x86_64  560.35.03`. */
function loadedVersion(machine: Machine): string | undefined {
  const line = /^NVRM version:.*$/m.exec(machine.text("/proc/driver/nvidia/version") ?? "")?.[0];
  return /\s(\d{3}\.\d+(?:\.\d+)?)\s/.exec(line ?? "")?.[1] ?? machine.text("/sys/module/nvidia/version")?.trim();
}

function libraryVersions(machine: Machine): string[] {
  const names = LIBRARY_FOLDERS.flatMap((folder) => machine.names(folder));
  const versions = names.map((name) => /^libnvidia-ml\.so\.(\d{3}\.\d+(?:\.\d+)?)$/.exec(name)?.[1]);
  return [...new Set(versions.filter((version) => version !== undefined))];
}

/** `/dev/nvidia0`, `/dev/nvidiactl`, `/dev/nvidia-uvm` …: the device files a program opens. */
export function deviceFiles(machine: Machine): Map<string, FileLook> {
  const names = machine.names("/dev").filter((name) => /^nvidia(?:\d+|ctl|-uvm|-uvm-tools|-modeset)$/.test(name));
  return new Map(
    names.flatMap((name): [string, FileLook][] => {
      const look = machine.look(`/dev/${name}`);
      return look === undefined ? [] : [[`/dev/${name}`, look]];
    }),
  );
}

/** The EFI variable: four bytes of attributes, then one that is 1 where Secure Boot is on. */
function hasSecureBoot(machine: Machine): boolean {
  const name = machine.names("/sys/firmware/efi/efivars").find((one) => one.startsWith("SecureBoot-"));
  return name !== undefined && machine.text(`/sys/firmware/efi/efivars/${name}`)?.charCodeAt(4) === 1;
}

function persistencedUnit(machine: Machine): string | undefined {
  const folders = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
  return folders
    .map((folder) => machine.text(`${folder}/nvidia-persistenced.service`))
    .find((text) => text !== undefined);
}

/** What the bridge above a board can carry: the slot, whatever the board could. */
function slotWidth(machine: Machine, address: string): [string, number][] {
  try {
    const device = realpathSync(machine.at(`/sys/bus/pci/devices/${address}`));
    const above = basename(dirname(device));
    const width = Number(machine.text(`/sys/bus/pci/devices/${above}/max_link_width`));
    return Number.isInteger(width) && width > 0 && width <= 32 ? [[address, width]] : [];
  } catch {
    return [];
  }
}

export const gpus: Reader<"gpus"> = {
  after: ["config"],
  limitMs: SMI_MS + 2_000,
  async read({ machine, env, now }, had, signal) {
    const { smi: path = "nvidia-smi", simulated = false } = had("config")?.config.nvidia ?? {};
    const smi = createSmi({ path, env });
    // One that hangs is told as such before the reader's own time is over.
    const patient: Smi = { ...smi, run: (args, how) => smi.run(args, { ...how, timeoutMs: SMI_MS }) };
    const inventory = await readInventory(patient, { signal });
    const pids = [...inventory.processes.values()].flatMap((processes) => processes.map(({ pid }) => pid));
    const isInContainer = (pid: number) => {
      const owner = ownerOfProcess(pid, machine.at("/proc"));
      return owner !== undefined && "container" in owner;
    };
    return {
      simulated: simulated || /nvidia-smi-sim/.test(basename(path)),
      smi: path,
      inventory,
      inContainers: new Set(pids.filter(isInContainer)),
      atMs: now(),
    };
  },
};

export const kernelLog: Reader<"kernelLog"> = {
  after: ["config"],
  limitMs: KERNEL_LOG_MS + 1_000,
  async read({ machine }, had, signal) {
    const path = had("config")?.config.nvidia.kernelLog ?? "/dev/kmsg";
    const stop = new AbortController();
    const end = () => stop.abort();
    const timer = setTimeout(end, KERNEL_LOG_MS);
    signal.addEventListener("abort", end, { once: true });
    const messages: KernelMessage[] = [];
    let problem: string | undefined;
    const onProblem = (told: { message: string } | undefined) => {
      problem = told?.message;
    };
    // Most of a log is about other things, and it may be long.
    const judge = new HealthJudge({ now: Date.now, memory: { get: () => undefined, set: () => undefined } });
    try {
      for await (const message of kernelMessages({
        path: machine.at(path),
        signal: stop.signal,
        onProblem,
        onCaughtUp: end,
      })) {
        if (judge.kernel(message)) messages.push(message);
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
    }
    return {
      path,
      ...(problem !== undefined && { problem }),
      messages,
      isRestricted: machine.text("/proc/sys/kernel/dmesg_restrict")?.trim() === "1",
    };
  },
};
