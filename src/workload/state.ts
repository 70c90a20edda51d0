import { WORKLOAD_STATES, type WorkloadState } from "../protocol/workload.ts";

/**
 * The states of a workload are a logical clock: within a generation only a later one may follow, and nothing follows
 * a terminal one. That single rule makes every message idempotent and every replay harmless.
 */
const TERMINAL: ReadonlySet<WorkloadState> = new Set([
  "succeeded",
  "failed",
  "stopped",
  "preempted",
  "rejected",
  "lost",
]);

/** True where the workload has ended and will never run again in this generation. */
export function isTerminal(state: WorkloadState): boolean {
  return TERMINAL.has(state);
}

/** True where `to` may be recorded after `from`. All terminal states stand on the same last step. */
export function mayFollow(from: WorkloadState, to: WorkloadState): boolean {
  if (isTerminal(from)) return false;
  return isTerminal(to) || WORKLOAD_STATES.indexOf(to) > WORKLOAD_STATES.indexOf(from);
}
