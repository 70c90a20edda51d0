import type { KeyObject } from "node:crypto";
import { setImmediate as turn } from "node:timers/promises";
import { createUsageSums, localDay } from "./usage-summary.ts";

/** What all workloads used on a day. */
export interface UsageOnDay {
  /** Local date the records began on, `YYYY-MM-DD`. */
  day: string;
  gpuSeconds: number;
  /** Absent where nothing was told of power. */
  energyJoules?: number;
  records: number;
}

/** The last days, today the last of them: `GET /v1/usage-days`. */
export interface UsageDays {
  /** Oldest first, one for each day. */
  days: UsageOnDay[];
  /** Records that cannot be read, are not as this node signed them, or do not follow the one before. */
  unverified: number;
}

export interface UsageDaysDoors {
  /** Records that end after `sinceMs`, from behind a position on, in the order they were written. */
  records(sinceMs: number, after: number): Iterable<{ position: number; record: unknown }>;
  /** All the node ever signed with. */
  keys(): readonly KeyObject[];
  now(): number;
  /** Aborted when the daemon leaves, and its ledger is closed: what is being read is then told as far as it is known. */
  signal: AbortSignal;
}

const DAYS = 7;
/** The daemon does other things between so many signatures, some milliseconds' work. */
const AT_ONCE = 100;

/**
 * Returns what tells the usage of the last seven days. Each record is verified once a day, and remembered as part of the sum: a week of
 * a busy node is some 80,000 signatures.
 */
export function usageDays(doors: UsageDaysDoors): () => Promise<UsageDays> {
  let known = { since: "", sums: createUsageSums(), position: 0 };
  const read = async (): Promise<UsageDays> => {
    const wanted = lastDays(doors.now());
    const [since = ""] = wanted;
    if (known.since !== since) known = { since, sums: createUsageSums(), position: 0 };
    const keys = doors.keys();
    let count = 0;
    for (const { position, record } of doors.records(new Date(`${since}T00:00:00`).getTime(), known.position)) {
      known.position = position;
      known.sums.add(record, keys);
      count += 1;
      if (count % AT_ONCE === 0) await turn();
      if (doors.signal.aborted) break;
    }
    const { days, problems } = known.sums.summary();
    return { days: wanted.map((day) => ofDay(day, days)), unverified: problems.length };
  };
  let last: Promise<unknown> = Promise.resolve();
  return () => {
    // One after the other: two would count the same records twice.
    const next = last.then(read, read);
    last = next;
    return next;
  };
}

type Sums = ReturnType<ReturnType<typeof createUsageSums>["summary"]>["days"];

function ofDay(day: string, sums: Sums): UsageOnDay {
  const of = sums.filter((sum) => sum.day === day);
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const energies = of.flatMap(({ energyJoules }) => energyJoules ?? []);
  return {
    day,
    gpuSeconds: sum(of.map(({ gpuSeconds }) => gpuSeconds)),
    ...(energies.length > 0 && { energyJoules: sum(energies) }),
    records: sum(of.map(({ records }) => records)),
  };
}

/** Local dates, oldest first. */
function lastDays(now: number): string[] {
  const today = new Date(now);
  return Array.from({ length: DAYS }, (_, at) =>
    localDay(new Date(today.getFullYear(), today.getMonth(), today.getDate() - (DAYS - 1 - at), 12)),
  );
}
