import * as z from "zod";
import { WORKLOAD_STATES, type WorkloadState } from "../protocol/workload.ts";

/**
 * How a workload stands for the operator: two states before any node speaks of it, then the node's own.
 *
 *     pending ── placed ──▶ assigned ── events ──▶ accepted … running ──▶ one of the six ends
 *        ▲                     │           │
 *        └─────────────────────┴───────────┘
 *          refused, `rejected`, or `preempted` and to be run again: generation + 1
 */
export const PLACEMENT_STATES = ["pending", "assigned", ...WORKLOAD_STATES] as const;
export const PlacementState = z.enum(PLACEMENT_STATES);
export type PlacementState = z.infer<typeof PlacementState>;

const ENDS: ReadonlySet<PlacementState> = new Set<WorkloadState>([
  "succeeded",
  "failed",
  "stopped",
  "preempted",
  "rejected",
  "lost",
]);

/** True for the six states that end a generation. */
export function isEnd(state: PlacementState): boolean {
  return ENDS.has(state);
}

/** Whether a node's word of `next` may follow `current` in one generation: forward, or the same again with news. */
export function mayFollow(current: PlacementState, next: WorkloadState): boolean {
  return !isEnd(current) && PLACEMENT_STATES.indexOf(next) >= PLACEMENT_STATES.indexOf(current);
}
