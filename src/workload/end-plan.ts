import type { StoredWorkload } from "./record.ts";

/** How the time that a workload has left is divided; milliseconds. */
export interface EndPlan {
  checkpointMs: number;
  graceMs: number;
  /** What it gets less of than it asked for, for a person; absent where it gets all. */
  cut?: string;
}

/** A stop signal without any time to act on it would be a kill: so much of the grace is kept, or a tenth of what is left. */
const GRACE_LEAST_MS = 1_000;

/** What a workload asks for when its GPU is taken back. */
export function askedFor({ stop }: Pick<StoredWorkload, "stop">): { checkpointMs: number; graceMs: number } {
  return { checkpointMs: (stop.checkpoint?.timeoutSeconds ?? 0) * 1000, graceMs: stop.graceSeconds * 1000 };
}

/**
 * Fits checkpoint and grace into `availableMs`. The grace shrinks first, since a checkpoint cut short is lost; the last of it is
 * taken from the checkpoint, so that there is always a signal before the kill where any time is left at all.
 */
export function planEnd(asked: { checkpointMs: number; graceMs: number }, availableMs: number): EndPlan {
  const { checkpointMs, graceMs } = asked;
  const available = Math.max(0, availableMs);
  if (checkpointMs + graceMs <= available) return { checkpointMs, graceMs };
  const least = Math.min(graceMs, Math.max(GRACE_LEAST_MS, available / 10), available);
  const grace = Math.max(least, available - checkpointMs);
  const plan = { checkpointMs: Math.min(checkpointMs, available - grace), graceMs: grace };
  const parts = [
    plan.checkpointMs < checkpointMs
      ? `checkpoint ${seconds(plan.checkpointMs)} of ${seconds(checkpointMs)} s`
      : undefined,
    plan.graceMs < graceMs ? `grace ${seconds(plan.graceMs)} of ${seconds(graceMs)} s` : undefined,
  ];
  return { ...plan, cut: parts.filter((part) => part !== undefined).join(", ") };
}

function seconds(ms: number): string {
  return String(Math.round(ms / 100) / 10);
}
