import type { Reliability } from "../protocol/agent-frames.ts";
import { upShare } from "../protocol/reliability.ts";

/**
 * How steady a node has been, for choosing among those that fit a workload equally well. Coarse on purpose: nodes in the same class
 * count as equal, so that a reboot or a single bad evening decides nothing.
 */

/** Down for more than this share of the time: one class worse for each. */
const DOWN_SHARES = [0.01, 0.05, 0.2];
/** Interrupted more often than this in a day of being up: one class worse for each. Once a week, once a day, five times a day. */
const PER_UP_DAY = [1 / 7, 1, 5];
/** Of less than a day nothing is concluded. */
const KNOWN_SECONDS = 86_400;
/** A node nobody knows: behind those that have proved to be steady, before those that have proved not to be. */
const UNKNOWN = [1, 1];
/** Preemptions that are this coordinator's own doing say nothing about the node. */
const OWN_DOING: ReadonlySet<string> = new Set(["coordinator", "priority"]);

/** The classes of a node, the smaller the steadier, to be compared one after the other: time down, then interruptions. */
export function steadiness(reliability: Reliability | undefined): number[] {
  if (reliability === undefined) return UNKNOWN;
  const { upSeconds, downSeconds, workloads, preemptions } = reliability;
  if (upSeconds + downSeconds < KNOWN_SECONDS) return UNKNOWN;
  const takenBack = preemptions.reduce((sum, { cause, count }) => sum + (OWN_DOING.has(cause) ? 0 : count), 0);
  // The first one is chance.
  const interruptions = Math.max(0, takenBack + workloads.lost - 1);
  const upDays = Math.max(1, upSeconds / 86_400);
  return [classOf(1 - (upShare(reliability) ?? 1), DOWN_SHARES), classOf(interruptions / upDays, PER_UP_DAY)];
}

function classOf(value: number, limits: readonly number[]): number {
  return limits.filter((limit) => value > limit).length;
}
