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

/** The record with the number of the event that gave it notice, where one has; the same record where none did. */
export function withNotice(record: WorkloadRecord, seq: number | undefined): WorkloadRecord {
  if (seq === undefined) return record;
  const { stop, notice } = record;
  if (stop?.preemption !== undefined && stop.preemption.noticeSeq === undefined) {
    return { ...record, stop: { ...stop, preemption: { ...stop.preemption, noticeSeq: seq } } };
  }
  if (stop === undefined && notice !== undefined && notice.seq === undefined) {
    return { ...record, notice: { ...notice, seq } };
  }
  return record;
}
