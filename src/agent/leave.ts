import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { isTerminal } from "../workload/state.ts";
import type { Supervisor } from "../workload/supervisor.ts";

/** What becomes of the work when the agent leaves. */
export type Leaving =
  /** It goes on, and the next agent takes it up. */
  | { kind: "detach" }
  /** It ends, with notice, `withinMs` from now at the latest; `message` tells coordinator and tenant why. */
  | { kind: "stop"; withinMs: number; message: string };

/** A container that was killed at the deadline still has to be seen to be down, and its end to be told. */
const LAST_ENDS_MS = 5_000;

/**
 * Ends all work with a notice of cause `host_shutdown`, and lets nothing new in. Each workload has the checkpoint and the grace it asked
 * for, cut to `deadlineAt` (by the steady clock, milliseconds). Resolves when all of it is over, or a little after the deadline, whatever
 * is left then. Where the disk does not take the orders, nothing is ended.
 */
export async function stopWork(
  { deadlineAt, message }: { deadlineAt: number; message: string },
  { supervisor, steady, log }: { supervisor: Supervisor; steady(): number; log: Logger },
): Promise<void> {
  supervisor.draining = true;
  const withinSeconds = Math.max(0, (deadlineAt - steady()) / 1000);
  const live = supervisor.records().filter(({ state }) => !isTerminal(state));
  const needs = ({ spec: { stop } }: (typeof live)[number]) =>
    stop.graceSeconds + (stop.checkpoint?.timeoutSeconds ?? 0);
  const [fitting, cut] = [
    live.filter((record) => needs(record) <= withinSeconds),
    live.filter((record) => needs(record) > withinSeconds),
  ].map((records) => records.map(({ id }) => id));
  try {
    if (fitting?.length) supervisor.preempt(fitting, { cause: "host_shutdown", message });
    if (cut?.length) supervisor.preempt(cut, { cause: "host_shutdown", message, graceSeconds: withinSeconds });
  } catch (error) {
    log.error({ err: error }, "the end of the work could not be recorded; what runs goes on");
    return;
  }
  const ending = supervisor.runners().filter(({ isOver }) => !isOver);
  const patience = new AbortController();
  const late = sleep(Math.max(0, deadlineAt - steady()) + LAST_ENDS_MS, true, { signal: patience.signal });
  const isLate = await Promise.race([Promise.all(ending.map(({ ended }) => ended)).then(() => false), late]);
  patience.abort();
  await late.catch(() => undefined);
  if (isLate) {
    const left = ending.filter(({ isOver }) => !isOver).map(({ record }) => record.id);
    log.warn({ workloads: left }, "the time is over and not all work has ended; the next gpunode sees to the rest");
  }
}
