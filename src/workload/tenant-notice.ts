import type { PreemptionCause } from "../protocol/event.ts";
import { linkedController, orAborted } from "./abort.ts";
import { askedFor } from "./end-plan.ts";
import type { Engine, Log } from "./needs.ts";
import type { Notice, WorkloadRecord } from "./record.ts";

/**
 * How a workload itself learns that its GPU is taken back: a file in its container, and a signal if it asks for one. docs/tenant.md is
 * what tenants are told of it.
 */

/** Folder of every container that the agent writes to. */
export const INBOX = "/run/gpunode";
/** The file; it is not there before the first notice. */
export const NOTICE_FILE = `${INBOX}/preemption.json`;
/** Variable of every container that names the file. */
export const NOTICE_VARIABLE = "GPUNODE_PREEMPTION_FILE";

/** The stop goes on after these, whether the tenant could be told or not. */
const FILE_MOST_MS = 700;
const SIGNAL_MOST_MS = 300;

export interface TenantNotice {
  /** `withdrawn`: the GPU stays; a notice given before no longer holds. */
  phase: "notice" | "withdrawn";
  cause: PreemptionCause;
  message?: string;
  /** When it was told. Wall clock, milliseconds since the epoch, like `deadline`. */
  at: number;
  /** It is killed no later than this. */
  deadline?: number;
}

/** The file as the tenant reads it: one line of JSON. Times are RFC 3339 in UTC with milliseconds. */
export function noticeText({ phase, cause, message, at, deadline }: TenantNotice): string {
  const notice = {
    version: 1,
    phase,
    cause,
    ...(message !== undefined && { message }),
    at: new Date(at).toISOString(),
    ...(deadline !== undefined && { deadline: new Date(deadline).toISOString() }),
  };
  return `${JSON.stringify(notice)}\n`;
}

interface Clocks {
  /** The wall clock: a tenant knows no other. */
  now(): number;
  steady(): number;
}

/** A notice as the tenant is told it, while its end has not begun. */
export function noticeOf({ cause, message, noticedAt, deadlineAt, withdrawn }: Notice, clocks: Clocks): TenantNotice {
  if (withdrawn === true) return { phase: "withdrawn", cause, at: clocks.now() };
  return {
    phase: "notice",
    cause,
    ...(message !== undefined && { message }),
    at: byWallClock(noticedAt, clocks),
    ...(deadlineAt !== undefined && { deadline: byWallClock(deadlineAt, clocks) }),
  };
}

/**
 * The notice of a record whose end begins now; undefined where nobody takes its GPU back, or where it was told already, by the
 * notice that announced this end.
 */
export function noticeOfEnd(
  { spec, stop, notice }: Pick<WorkloadRecord, "spec" | "stop" | "notice">,
  clocks: Clocks,
): TenantNotice | undefined {
  if (stop?.preemption === undefined) return undefined;
  const { killAt = Number.POSITIVE_INFINITY, graceSeconds, message, preemption } = stop;
  const { cause, noticedAt = clocks.steady() } = preemption;
  if (notice !== undefined && notice.noticedAt === preemption.noticedAt) return undefined;
  const { checkpointMs } = askedFor(spec);
  const dueAt = preemption.dueAt ?? clocks.steady() + checkpointMs + graceSeconds * 1000;
  const deadlineAt = Math.max(noticedAt, Math.min(killAt, dueAt));
  return noticeOf({ cause, ...(message !== undefined && { message }), noticedAt, deadlineAt }, clocks);
}

function byWallClock(steadyMs: number, { now, steady }: Clocks): number {
  return now() + (steadyMs - steady());
}

/**
 * Tells the tenant: writes the file, and then, where the workload asks for a signal and this is a notice, sends it to the main process.
 * Never rejects and takes a second at most: what could not be told is logged, and the preemption goes on. May be called again; the
 * newest file stands. Returns early when `signal` is aborted.
 */
export async function tellTenant(
  engine: Pick<Engine, "putFile" | "kill">,
  { containerId, noticeSignal }: { containerId: string; noticeSignal?: string | undefined },
  notice: TenantNotice,
  { signal, log }: { signal: AbortSignal; log: Pick<Log, "warn"> },
): Promise<void> {
  const file = { path: NOTICE_FILE, text: noticeText(notice), mode: 0o644 as const };
  await attempt("could not write the notice into the container", FILE_MOST_MS, (limit) =>
    engine.putFile(containerId, file, { signal: limit }),
  );
  if (notice.phase !== "notice" || noticeSignal === undefined || signal.aborted) return;
  await attempt(`could not send ${noticeSignal} to the container`, SIGNAL_MOST_MS, () =>
    engine.kill(containerId, noticeSignal),
  );

  async function attempt(failed: string, timeoutMs: number, act: (limit: AbortSignal) => Promise<void>): Promise<void> {
    const limit = linkedController(signal, timeoutMs);
    try {
      await orAborted(act(limit.signal), limit.signal);
    } catch (error) {
      if (!signal.aborted) log.warn({ containerId, err: error }, `${failed}: the tenant may not know; going on`);
    } finally {
      limit.unlink();
    }
  }
}
