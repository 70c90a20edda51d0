import type { StopOrder, WorkloadRecord } from "./record.ts";

/** An order to end with the outcome `stopped`; with the workload's own grace where none is given. */
export function stopOrder(record: WorkloadRecord, reason: string, graceSeconds?: number): StopOrder {
  return { outcome: "stopped", reason, graceSeconds: graceSeconds ?? record.spec.stop.graceSeconds };
}

/** Of two stop orders, what remains: the first one's reason, with the earlier end. `before` itself where nothing changes. */
export function harder(before: StopOrder, after: StopOrder, now: number): StopOrder {
  const end = Math.min(after.killAt ?? Number.MAX_SAFE_INTEGER, now + after.graceSeconds * 1000);
  const begun = before.killAt !== undefined || before.preemption?.checkpointUntil !== undefined;
  if (begun) {
    if (end >= (before.killAt ?? Number.MAX_SAFE_INTEGER)) return before;
    if (before.killAt === undefined && after.killAt === undefined && after.graceSeconds >= before.graceSeconds)
      return before;
    return { ...before, killAt: end };
  }
  if (after.graceSeconds >= before.graceSeconds && after.killAt === undefined) return before;
  return {
    ...before,
    graceSeconds: Math.min(before.graceSeconds, after.graceSeconds),
    ...(after.killAt !== undefined && { killAt: after.killAt }),
  };
}

/** The record with the sequence number of the event that gave it notice; the same record where it was given none. */
export function withNotice(record: WorkloadRecord, noticeSeq: number | undefined): WorkloadRecord {
  const { stop } = record;
  if (stop?.preemption === undefined || noticeSeq === undefined || stop.preemption.noticeSeq !== undefined)
    return record;
  return { ...record, stop: { ...stop, preemption: { ...stop.preemption, noticeSeq } } };
}
