import { GpunodeError } from "../protocol/errors.ts";
import type { Bucket } from "../telemetry/buckets.ts";
import type { Past } from "../telemetry/history.ts";
import type { Mark } from "../telemetry/marks.ts";

/** One value for each bucket from `startMs` on; `null` where nothing is known. */
type Column = (number | null)[];

type Columns<Figure extends string> = {
  /** Start of the first bucket, milliseconds since the epoch. */
  startMs: number;
  stepMs: number;
  /** The highest value in each bucket, where the columns beside it have the mean. */
  max: Record<Figure, Column>;
} & Record<Figure, Column>;

export type GpuHistory = Columns<"utilizationPercent" | "vramUsedMiB" | "powerWatts" | "temperatureCelsius">;
export type HostHistory = Columns<
  "cpuPercent" | "memoryUsedMiB" | "networkRxBytesPerSecond" | "networkTxBytesPerSecond"
>;

/** How long a workload held GPUs or MIG instances. */
export interface HistorySpan {
  workload: string;
  generation: number;
  gpus: readonly string[];
  fromMs: number;
  /** Absent while it is there. */
  toMs?: number;
}

/**
 * The last hours of the node: `GET /v1/history?hours=24`. Up to one hour in steps of 10 s, up to six in steps of a minute, up to 24 in
 * steps of five. Times are milliseconds since the epoch; all columns are of the same length.
 */
export interface History {
  at: string;
  /** By UUID: the GPUs that were here in these hours. */
  series: Record<string, GpuHistory>;
  host: HostHistory;
  spans: HistorySpan[];
  /** What happened, oldest first. */
  marks: Mark[];
}

export const HISTORY_HOURS_MAX = 24;

/** Reads `hours` of a query; 24 where absent. Throws `bad_message`. */
export function hoursOf(query: URLSearchParams): number {
  const text = query.get("hours");
  if (text === null) return HISTORY_HOURS_MAX;
  const hours = Number(text);
  if (/^\d{1,2}$/.test(text) && hours >= 1 && hours <= HISTORY_HOURS_MAX) return hours;
  throw new GpunodeError(
    "bad_message",
    `hours=${text.slice(0, 20)}: expected a whole number from 1 to ${HISTORY_HOURS_MAX}`,
  );
}

/** Digits behind the point; one where it is not named. */
const DIGITS: Readonly<Record<string, number>> = {
  vramUsedMiB: 0,
  memoryUsedMiB: 0,
  networkRxBytesPerSecond: 0,
  networkTxBytesPerSecond: 0,
};
/** The host's name among the subjects of a bucket. */
const HOST_SUBJECT = "host";

/** The past as the owner sees it. Pure. */
export function describeHistory({ sinceMs, nowMs, stepMs, figures, buckets, spans, marks }: Past): History {
  const count = Math.floor((nowMs - sinceMs) / stepMs) + 1;
  const rows = Array.from({ length: count }, (_, at) => buckets.get(sinceMs + at * stepMs));
  const columns = <Figure extends string>(subject: string, names: readonly Figure[]) => {
    const all = (what: "mean" | "max") =>
      Object.fromEntries(
        names.map((name, figure) => [name, columnOf(rows, (bucket) => bucket.get(subject)?.[figure]?.[what], name)]),
      ) as Record<Figure, Column>;
    return { startMs: sinceMs, stepMs, max: all("max"), ...all("mean") };
  };
  const gpus = new Set(rows.flatMap((bucket) => [...(bucket?.keys() ?? [])]));
  gpus.delete(HOST_SUBJECT);
  return {
    at: new Date(nowMs).toISOString(),
    series: Object.fromEntries(
      [...gpus].sort().map((uuid): [string, GpuHistory] => [uuid, columns(uuid, figures.gpu)]),
    ),
    host: columns(HOST_SUBJECT, figures.host),
    spans: spans.map(({ workload, generation, gpus: held, fromMs, toMs, isOpen }) => ({
      workload,
      generation,
      gpus: held,
      fromMs,
      ...(!isOpen && { toMs }),
    })),
    marks: [...marks],
  };
}

function columnOf(
  rows: readonly (Bucket | undefined)[],
  valueIn: (bucket: Bucket) => number | undefined,
  name: string,
): Column {
  return rows.map((bucket) => {
    const value = bucket === undefined ? undefined : valueIn(bucket);
    return value === undefined ? null : Number(value.toFixed(DIGITS[name] ?? 1));
  });
}
