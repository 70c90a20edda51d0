import { setTimeout as sleep } from "node:timers/promises";
import { orAborted } from "./abort.ts";
import { type Notice, pendingNotice, type StopOrder, type WorkloadRecord } from "./record.ts";

export interface NoticeDoors {
  record(): WorkloadRecord;
  /** Resolves when the record's notice may have changed. */
  changed(): Promise<void>;
  /** Tells the tenant of a notice, or that it was withdrawn. Never rejects. */
  tell(notice: Notice, signal: AbortSignal): Promise<void>;
  /** Orders the end. Throws where the disk refuses. */
  order(stop: StopOrder): void;
  steady(): number;
}

/** `setTimeout` takes no more than a signed 32-bit number of milliseconds. */
const TIMER_MOST_MS = 2 ** 31 - 1;

/**
 * While a workload runs: tells its tenant of each notice and of its withdrawal, and orders its end when the notice says so. Resolves with
 * that order; rejects with the signal's reason, or where the disk refuses the order.
 */
export async function heedNotice(doors: NoticeDoors, signal: AbortSignal): Promise<void> {
  let told: string | undefined;
  for (;;) {
    const changed = doors.changed();
    const { notice } = doors.record();
    if (notice !== undefined && nameOf(notice) !== told) {
      told = nameOf(notice);
      await doors.tell(notice, signal);
      signal.throwIfAborted();
    }
    const pending = pendingNotice(doors.record());
    const leftMs = pending?.beginAt === undefined ? undefined : pending.beginAt - doors.steady();
    if (pending !== undefined && leftMs !== undefined && leftMs <= 0) {
      doors.order(orderOf(pending, doors.record()));
      return;
    }
    await within(changed, leftMs, signal);
  }
}

/** The end that a notice announced; its time is the notice's. */
function orderOf(
  { cause, message, seq, noticedAt, deadlineAt }: Notice,
  { spec }: Pick<WorkloadRecord, "spec">,
): StopOrder {
  return {
    outcome: "preempted",
    reason: cause,
    ...(message !== undefined && { message }),
    graceSeconds: spec.stop.graceSeconds,
    ...(deadlineAt !== undefined && { killAt: deadlineAt }),
    preemption: {
      cause,
      noticedAt,
      ...(deadlineAt !== undefined && { dueAt: deadlineAt }),
      ...(seq !== undefined && { noticeSeq: seq }),
    },
  };
}

/** Tells a notice from the one before it, and from its withdrawal. */
function nameOf({ seq, noticedAt, withdrawn }: Notice): string {
  return `${seq} ${noticedAt} ${withdrawn === true}`;
}

async function within(changed: Promise<void>, ms: number | undefined, signal: AbortSignal): Promise<void> {
  if (ms === undefined) return await orAborted(changed, signal);
  const over = new AbortController();
  const timer = sleep(Math.min(ms, TIMER_MOST_MS), undefined, { signal: over.signal }).catch(() => undefined);
  try {
    await orAborted(Promise.race([changed, timer]), signal);
  } finally {
    over.abort();
  }
}
