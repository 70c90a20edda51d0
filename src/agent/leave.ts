import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Supervisor } from "../workload/supervisor.ts";
import type { NodePreemption } from "./preemption.ts";

/** What becomes of the work when the agent leaves. */
export type Leaving =
  /** It goes on, and the next agent takes it up. */
  | { kind: "detach" }
  /** It ends, with notice, `withinMs` from now at the latest; `message` tells coordinator and tenant why. */
  | { kind: "stop"; withinMs: number; message: string };

interface StopDoors {
  supervisor: Supervisor;
  preemption: Pick<NodePreemption, "shutDown">;
  steady(): number;
  log: Logger;
}

/** A container that was killed at the deadline still has to be seen to be down, and its end to be told. */
const LAST_ENDS_MS = 5_000;

/**
 * Ends all work, and lets nothing new in: each workload has the checkpoint and the grace it asked for, cut to `deadlineAt` (by the steady
 * clock, milliseconds). Resolves when all of it is over, or a little after the deadline, whatever is left then.
 */
export async function stopWork(
  { deadlineAt, message }: { deadlineAt: number; message: string },
  { supervisor, preemption, steady, log }: StopDoors,
): Promise<void> {
  preemption.shutDown({ deadlineAt, message });
  const ending = supervisor.runners().filter(({ isOver }) => !isOver);
  const patience = new AbortController();
  const late = sleep(Math.max(0, deadlineAt - steady()) + LAST_ENDS_MS, true, { signal: patience.signal });
  const isLate = await Promise.race([Promise.all(ending.map(({ ended }) => ended)).then(() => false), late]);
  patience.abort();
  await late.catch(() => undefined);
  if (isLate) {
    const left = ending.filter(({ isOver }) => !isOver).map(({ record }) => record.id);
    log.warn(
      { workloads: left },
      "the time is over and not all work has ended; the next gpunode sees to the rest. More time: preemption.host_shutdown_seconds",
    );
  }
}
