import { holdOn } from "../hold-words.ts";
import type { GpuStatus, Snapshot } from "../snapshot.ts";

/** "14:05" by this browser's clock. */
export function timeOfDay(ms: number): string {
  const at = new Date(ms);
  return `${String(at.getHours()).padStart(2, "0")}:${String(at.getMinutes()).padStart(2, "0")}`;
}

/** "last 6 hours", "last hour". */
export function lastHours(hours: number): string {
  return hours === 1 ? "last hour" : `last ${hours} hours`;
}

/** Why nobody is given a GPU that nobody uses; undefined where somebody may be. */
export function heldBack(gpu: GpuStatus, { holds }: Pick<Snapshot, "holds">): string | undefined {
  if (holdOn(gpu.uuid, holds) !== undefined) return undefined;
  return gpu.allocatable ? undefined : "not given out";
}
