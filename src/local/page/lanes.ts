import type { HistorySpan } from "../history.ts";

/** A span as it is drawn: shares of the time shown, from its start. */
export interface Segment {
  workload: string;
  fromMs: number;
  toMs: number;
  left: number;
  width: number;
  /** Row, where several held the GPU at once (MIG). */
  lane: number;
  /** One of `COLORS`, the same for the same workload everywhere. */
  color: number;
}

export const COLORS = 8;

/** Who held a GPU or its instances, within the time shown. */
export function segmentsOf(
  spans: readonly HistorySpan[],
  units: readonly string[],
  { fromMs, toMs }: { fromMs: number; toMs: number },
): Segment[] {
  const endOfLane: number[] = [];
  return spans
    .filter((span) => span.gpus.some((uuid) => units.includes(uuid)))
    .map((span) => ({ ...span, fromMs: Math.max(span.fromMs, fromMs), toMs: Math.min(span.toMs ?? toMs, toMs) }))
    .filter((span) => span.toMs > span.fromMs)
    .sort((a, b) => a.fromMs - b.fromMs)
    .map((span) => {
      const free = endOfLane.findIndex((end) => end <= span.fromMs);
      const lane = free === -1 ? endOfLane.length : free;
      endOfLane[lane] = span.toMs;
      return {
        workload: span.workload,
        fromMs: span.fromMs,
        toMs: span.toMs,
        left: (span.fromMs - fromMs) / (toMs - fromMs),
        width: (span.toMs - span.fromMs) / (toMs - fromMs),
        lane,
        color: colorOf(span.workload),
      };
    });
}

const known = new Map<string, number>();

/** Goes round: so many that are seen one after the other are all different. */
export function colorOf(workload: string): number {
  const color = known.get(workload) ?? known.size % COLORS;
  known.set(workload, color);
  return color;
}
