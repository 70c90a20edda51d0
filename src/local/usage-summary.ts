import type { KeyObject } from "node:crypto";
import { UsageEvent } from "../protocol/event.ts";
import { type ChainLink, chainProblem, verifyUsage } from "../protocol/usage.ts";

/** What a workload used on a day. */
export interface UsageOfDay {
  /** Local date the records began on, `YYYY-MM-DD`. */
  day: string;
  workload: string;
  gpuSeconds: number;
  /** Absent where the boards tell no power. */
  energyJoules?: number;
  /** Mean over the seconds that were sampled. */
  gpuUtilizationMeanPercent?: number;
  vramPeakMiB?: number;
  cpuSeconds: number;
  records: number;
  /** Every record is signed by a key of this node's and follows the one before. */
  verified: boolean;
}

export interface UsageSummary {
  /** In the order of days, then of workloads. */
  days: UsageOfDay[];
  total: { gpuSeconds: number; energyJoules: number; records: number };
  /** What does not verify, in sentences. */
  problems: string[];
}

interface Sum extends UsageOfDay {
  busyPercentSeconds: number;
  busySeconds: number;
}

/**
 * Adds the records up by day and workload, and verifies each: its signature with one of the node's keys, and that it begins where the one
 * before it in the same generation ended. `records` are in the order they were written.
 */
export async function summarize(
  records: AsyncIterable<unknown> | Iterable<unknown>,
  keys: readonly KeyObject[],
): Promise<UsageSummary> {
  const sums = createUsageSums();
  for await (const raw of records) sums.add(raw, keys);
  return sums.summary();
}

/** The sums so far, for who reads on later where the ledger has grown. */
export interface UsageSums {
  /** A record as the ledger has it, and the keys it may be signed with. */
  add(raw: unknown, keys: readonly KeyObject[]): void;
  /** Whether it was added already: it ends no later than what its generation is known to. */
  has(raw: unknown): boolean;
  summary(): UsageSummary;
}

export function createUsageSums(): UsageSums {
  const sums = new Map<string, Sum>();
  const chains = new Map<string, ChainLink>();
  const problems: string[] = [];
  const total = { gpuSeconds: 0, energyJoules: 0, records: 0 };
  return {
    add(raw, keys) {
      total.records += 1;
      const parsed = UsageEvent.safeParse(raw);
      if (!parsed.success) {
        problems.push(`record ${total.records} of the ledger cannot be read`);
        return;
      }
      const record = parsed.data;
      const chain = chainOf(record);
      const fault = keys.some((key) => verifyUsage(record, key))
        ? chainProblem(record, chains.get(chain))
        : "its signature is not this node's: it was changed, or written by another node";
      if (fault !== undefined) {
        problems.push(`${record.workload} (generation ${record.generation}), ${record.from} to ${record.to}: ${fault}`);
      }
      chains.set(chain, record);
      total.gpuSeconds += record.gpuSeconds;
      total.energyJoules += record.energyJoules ?? 0;
      add(sums, record, fault === undefined);
    },
    has(raw) {
      const record = raw as Partial<UsageEvent> | null;
      const known = chains.get(chainOf({ workload: "", generation: 0, ...record }));
      return known !== undefined && typeof record?.to === "string" && record.to <= known.to;
    },
    summary() {
      const days = [...sums.values()].sort(
        (a, b) => a.day.localeCompare(b.day) || a.workload.localeCompare(b.workload),
      );
      return { days: days.map(finished), total: { ...total }, problems: [...problems] };
    },
  };
}

function chainOf({ workload, generation }: Pick<UsageEvent, "workload" | "generation">): string {
  return `${workload}#${generation}`;
}

function add(sums: Map<string, Sum>, record: UsageEvent, verified: boolean): void {
  const day = localDay(new Date(record.from));
  const key = `${day} ${record.workload}`;
  const sum = sums.get(key) ?? {
    ...{ day, workload: record.workload, gpuSeconds: 0, cpuSeconds: 0, records: 0, verified: true },
    ...{ busyPercentSeconds: 0, busySeconds: 0 },
  };
  sums.set(key, sum);
  sum.gpuSeconds += record.gpuSeconds;
  sum.cpuSeconds += record.cpuSeconds ?? 0;
  sum.records += 1;
  sum.verified &&= verified;
  if (record.energyJoules !== undefined) sum.energyJoules = (sum.energyJoules ?? 0) + record.energyJoules;
  if (record.vramPeakMiB !== undefined) sum.vramPeakMiB = Math.max(sum.vramPeakMiB ?? 0, record.vramPeakMiB);
  const seconds = record.observedSeconds ?? 0;
  if (record.gpuUtilizationMeanPercent === undefined || seconds === 0) return;
  sum.busyPercentSeconds += record.gpuUtilizationMeanPercent * seconds;
  sum.busySeconds += seconds;
}

function finished({ busyPercentSeconds, busySeconds, ...sum }: Sum): UsageOfDay {
  return busySeconds === 0 ? sum : { ...sum, gpuUtilizationMeanPercent: busyPercentSeconds / busySeconds };
}

/** A day as its owner counts them, `YYYY-MM-DD`. */
export function localDay(at: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}
