import { statfsSync } from "node:fs";
import { join } from "node:path";
import type { HostTelemetry } from "../protocol/agent-frames.ts";
import {
  type CpuTicks,
  type Meminfo,
  parseCpuTicks,
  parseLoadAverage1,
  parseMeminfo,
  parseNetDev,
  parsePressureSome10,
} from "./proc.ts";
import { readText } from "./read-text.ts";

const MIB = 1024 * 1024;

export interface HostSampler {
  /** The machine's figures now. What the kernel does not tell is absent; `cpuPercent` is since the sample before. */
  sample(): HostTelemetry;
}

/**
 * Reads `/proc` and asks the file system; starts no process, so it may be called every second. `diskPath` is where
 * workloads' data lies, or a function that tells; `procDir` is `/proc`, or a recording of it.
 */
export function createHostSampler({
  diskPath,
  procDir = "/proc",
}: {
  diskPath: string | (() => string);
  procDir?: string;
}): HostSampler {
  let before: CpuTicks | undefined;
  return {
    sample() {
      const ticks = parse(parseCpuTicks, join(procDir, "stat"));
      const busy = before === undefined || ticks === undefined ? undefined : busyPercent(before, ticks);
      before = ticks ?? before;
      const loadAverage1 = parse(parseLoadAverage1, join(procDir, "loadavg"));
      const memory = parse(parseMeminfo, join(procDir, "meminfo"));
      const pressure = parse(parsePressureSome10, join(procDir, "pressure/memory"));
      const network = parse(parseNetDev, join(procDir, "net/dev"));
      const disk = diskFreeMiB(typeof diskPath === "string" ? diskPath : diskPath());
      return {
        ...(busy !== undefined && { cpuPercent: busy }),
        ...(loadAverage1 !== undefined && { loadAverage1 }),
        ...(memory !== undefined && memoryTelemetry(memory)),
        ...(pressure !== undefined && { memoryPressureSome10: pressure }),
        ...(disk !== undefined && { diskFreeMiB: disk }),
        ...(network !== undefined && { networkRxBytes: network.rxBytes, networkTxBytes: network.txBytes }),
      };
    },
  };
}

/** Memory that can be given out without swapping; undefined where the kernel does not say. */
export function memoryAvailableMiB(procDir = "/proc"): number | undefined {
  return parse(parseMeminfo, join(procDir, "meminfo"))?.availableMiB;
}

/** What an ordinary user may still write to the file system of `path`; undefined where it cannot be asked. */
export function diskFreeMiB(path: string): number | undefined {
  try {
    const { bavail, bsize } = statfsSync(path);
    return Math.floor((bavail * bsize) / MIB);
  } catch {
    return undefined;
  }
}

/** Size of the file system of `path`; undefined where it cannot be asked. */
export function diskTotalMiB(path: string): number | undefined {
  try {
    const { blocks, bsize } = statfsSync(path);
    return Math.floor((blocks * bsize) / MIB);
  } catch {
    return undefined;
  }
}

/**
 * Names this boot: the same text until the machine is started again. Where the kernel does not say, the time it was
 * started; "" where it does not say that either.
 */
export function bootId(procDir = "/proc"): string {
  const id = readText(join(procDir, "sys/kernel/random/boot_id"))?.trim();
  if (id !== undefined && /^[0-9a-f-]{36}$/i.test(id)) return id;
  const bootedAt = /^btime (\d+)$/m.exec(readText(join(procDir, "stat")) ?? "")?.[1];
  return bootedAt === undefined ? "" : `btime-${bootedAt}`;
}

function busyPercent(before: CpuTicks, now: CpuTicks): number | undefined {
  const total = now.total - before.total;
  // Nothing has passed, or the counters went back (a CPU was taken out, a virtual machine was moved).
  if (total <= 0) return undefined;
  const percent = ((now.busy - before.busy) / total) * 100;
  return Math.round(Math.min(100, Math.max(0, percent)) * 10) / 10;
}

function memoryTelemetry({ totalMiB, availableMiB }: Meminfo): HostTelemetry {
  const used = availableMiB === undefined ? {} : { memoryUsedMiB: Math.max(0, totalMiB - availableMiB) };
  return { memoryTotalMiB: totalMiB, ...used };
}

function parse<T>(parser: (text: string) => T | undefined, path: string): T | undefined {
  const text = readText(path);
  return text === undefined ? undefined : parser(text);
}
