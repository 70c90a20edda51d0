import { totalmem } from "node:os";
import type { ContainerUsage } from "../workload/needs.ts";
import { StatsAnswer } from "./answers.ts";
import { type EngineClient, parseAnswer } from "./client.ts";
import { statusOf } from "./errors.ts";

const MIB = 1024 * 1024;
const NANOSECONDS = 1e9;

/** Reads what containers use; remembers each one's last reading for `cpuPercent`. */
export interface UsageReader {
  /** undefined where the container does not run. */
  read(id: string): Promise<ContainerUsage | undefined>;
  forget(id: string): void;
}

interface Reading {
  cpuSeconds: number;
  atMs: number;
}

export function usageReader(client: EngineClient): UsageReader {
  const last = new Map<string, Reading>();
  return {
    async read(id) {
      const container = client.docker.getContainer(id);
      const answer = await client
        .ask(
          // "one-shot": without it the engine takes two readings, a second apart.
          (abortSignal) => container.stats({ stream: false, "one-shot": true, abortSignal } as { stream: false }),
          { doing: `read what container ${id.slice(0, 12)} uses` },
        )
        .catch((error: unknown) => {
          if (statusOf(error) !== 404) throw error;
          return undefined;
        });
      if (answer === undefined) {
        last.delete(id);
        return undefined;
      }
      const stats = parseAnswer(StatsAnswer, answer, "a container's usage");
      const usage = usageOf(stats, last.get(id), totalmem());
      if (usage === undefined) last.delete(id);
      else last.set(id, { cpuSeconds: usage.cpuSeconds, atMs: Date.parse(stats.read) });
      return usage;
    },
    forget: (id) => void last.delete(id),
  };
}

/** One answer of the engine as a reading. undefined where it is that of a container that does not run: all zero. */
export function usageOf(
  { read, cpu_stats, memory_stats, networks }: StatsAnswer,
  before: Reading | undefined,
  hostMemoryBytes: number,
): ContainerUsage | undefined {
  const { usage, limit } = memory_stats;
  if (usage === undefined || read.startsWith("0001-01-01")) return undefined;
  const cpuSeconds = cpu_stats.cpu_usage.total_usage / NANOSECONDS;
  const elapsedSeconds = before === undefined ? 0 : (Date.parse(read) - before.atMs) / 1000;
  // A container that was started again counts from zero.
  const hasPercent = before !== undefined && elapsedSeconds > 0 && cpuSeconds >= before.cpuSeconds;
  const counters = Object.values(networks ?? {});
  return {
    ...(hasPercent && { cpuPercent: ((cpuSeconds - before.cpuSeconds) / elapsedSeconds) * 100 }),
    cpuSeconds,
    memoryMiB: Math.max(0, usage - reclaimable(memory_stats.stats ?? {})) / MIB,
    // Where there is no limit the engine names the machine's memory.
    ...(limit !== undefined && limit > 0 && limit < hostMemoryBytes && { memoryLimitMiB: limit / MIB }),
    networkRxBytes: sumOf(counters.map(({ rx_bytes }) => rx_bytes)),
    networkTxBytes: sumOf(counters.map(({ tx_bytes }) => tx_bytes)),
  };
}

/** Never more than can be told to the byte. */
function sumOf(bytes: readonly number[]): number {
  return Math.min(
    Number.MAX_SAFE_INTEGER,
    bytes.reduce((sum, count) => sum + count, 0),
  );
}

/**
 * File cache the kernel would give back at once is nobody's use. Its name differs: `total_inactive_file` with cgroup
 * v1 (the whole subtree), `inactive_file` with v2; the same rule as `docker stats` has.
 */
function reclaimable(stats: Readonly<Record<string, number>>): number {
  return stats.total_inactive_file ?? stats.inactive_file ?? 0;
}
