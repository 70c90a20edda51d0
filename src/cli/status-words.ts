import { holderInWords, holdOn } from "../local/hold-words.ts";
import { between } from "../local/in-words.ts";
import type { GpuStatus, Snapshot, WorkloadStatus } from "../local/snapshot.ts";
import { usersOf } from "../local/workload-words.ts";
import { upInWords } from "../protocol/reliability.ts";

/** What a snapshot says, in words: shared by `status` and `status --watch`. */

const DAY_MS = 86_400_000;
/** Below this a share of the time says nothing. */
const TELLING_MS = 3_600_000;

export const NODE_COLORS = {
  available: "green",
  draining: "yellow",
  stopping: "yellow",
} as const satisfies Record<Snapshot["node"]["state"], string>;

export const HEALTH_COLORS = { healthy: "green", degraded: "yellow", failed: "red" } as const;

export const WORKLOAD_COLORS: Readonly<Partial<Record<WorkloadStatus["state"], "green" | "yellow" | "red">>> = {
  running: "green",
  failed: "red",
  rejected: "red",
  lost: "red",
  preempted: "yellow",
  stopping: "yellow",
};

/** What the node has proved to be like, the most telling first; empty where nothing is known yet. */
export function reliabilityInWords({ reliability: known, at }: Snapshot): string[] {
  if (known === undefined) return [];
  const { succeeded, failed, stopped, preempted, lost } = known.workloads;
  const knownForMs = Date.parse(at) - Date.parse(known.since);
  const isTelling = knownForMs >= TELLING_MS;
  const counts: [number, string][] = [
    [failed, "failed"],
    [stopped, "stopped"],
    [preempted, "taken back"],
    [lost, "lost"],
  ];
  const ends = counts.flatMap(([count, word]) => (count === 0 ? [] : [`${count} ${word}`]));
  if (!isTelling && succeeded === 0 && ends.length === 0) return [];
  const figures = [...(isTelling ? [`up ${upInWords(known)}`] : []), `${succeeded} done`, ...ends];
  const isYoung = isTelling && knownForMs < 29 * DAY_MS;
  return [figures.join(", "), ...(isYoung ? [`known for ${between(known.since, at)}`] : [])];
}

/** "3 events to deliver"; nothing where the coordinator has them all. */
export function undeliveredInWords({ unackedEvents }: Snapshot["connection"]): string[] {
  return unackedEvents === 0 ? [] : [`${unackedEvents} ${unackedEvents === 1 ? "event" : "events"} to deliver`];
}

/** Who uses a GPU, and who wants it or keeps it. Who has to leave is told for as long as it is there. */
export function holderOf(
  gpu: GpuStatus,
  { holds, workloads, at }: Pick<Snapshot, "holds" | "workloads" | "at">,
): { text: string; isKept: boolean } {
  const { uuid, allocatedTo, allocatable } = gpu;
  const hold = holdOn(uuid, holds);
  if (hold === undefined) return { text: allocatedTo ?? (allocatable ? "free" : "not given out"), isKept: false };
  const users = usersOf(gpu, workloads)
    .map(({ id }) => id)
    .join(", ");
  const keeper = holderInWords(hold, at);
  return { text: users === "" ? keeper : `${users} → ${keeper}`, isKept: true };
}

/** What keeps the node from being all it could be, a sentence each. */
export function problemsInWords({ gpus, problems, at }: Snapshot): string[] {
  return [
    ...problems.map(({ message, since }) => `${message}${since === undefined ? "" : ` (for ${between(since, at)})`}`),
    ...gpus.flatMap(({ index, health }) =>
      health.reasons.map(({ message }) => `GPU ${index} is ${health.status}: ${message}`),
    ),
  ];
}
