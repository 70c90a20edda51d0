import { holderInWords, holdOn, whoIn } from "../local/hold-words.ts";
import { between } from "../local/in-words.ts";
import type { GpuStatus, Snapshot, WorkloadStatus } from "../local/snapshot.ts";
import { upInWords } from "../protocol/reliability.ts";
import { cut } from "./text-width.ts";

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

/** The index of a GPU, as the table of GPUs shows it; a MIG instance as index and profile. */
export function shortGpu(uuid: string, gpus: readonly GpuStatus[]): string {
  for (const gpu of gpus) {
    if (gpu.uuid === uuid) return String(gpu.index);
    const instance = gpu.mig?.instances.find((candidate) => candidate.uuid === uuid);
    if (instance !== undefined) return `${gpu.index}:${instance.profile}`;
  }
  return cut(uuid, 12);
}

/** Who uses a GPU, and who wants it or keeps it. Who has to leave is told for as long as it is there. */
export function holderOf(
  { uuid, allocatedTo, allocatable, mig }: GpuStatus,
  { holds, workloads, at }: Pick<Snapshot, "holds" | "workloads" | "at">,
): { text: string; isKept: boolean } {
  const hold = holdOn(uuid, holds);
  if (hold === undefined) return { text: allocatedTo ?? (allocatable ? "free" : "not given out"), isKept: false };
  const units = [uuid, ...(mig?.instances ?? []).map((instance) => instance.uuid)];
  const there = workloads.filter(
    ({ finishedAt, gpus }) => finishedAt === undefined && gpus.some((of) => units.includes(of)),
  );
  const users = there.map(({ id }) => id).join(", ");
  const keeper = holderInWords(hold, at);
  return { text: users === "" ? keeper : `${users} → ${keeper}`, isKept: true };
}

/** Why a workload has to go. */
export function noticeReason({ cause, message }: NonNullable<WorkloadStatus["notice"]>): string {
  return message ?? whoIn(cause);
}

/** What there is to say of a workload beside its state, its pull and its notice. */
export function remarksOn({
  state,
  reason,
  message,
  exitCode,
  oomKilled,
  restarts,
  ports,
  healthy,
  notice,
}: WorkloadStatus): string[] {
  const why = message ?? reason;
  return [
    ...(why === undefined || why === notice?.message ? [] : [why]),
    ...(oomKilled === true ? ["out of memory"] : []),
    // "exited with code 3" says it already.
    ...(exitCode === undefined || exitCode === 0 || why?.includes(`code ${exitCode}`) ? [] : [`exit code ${exitCode}`]),
    ...(restarts === 0 ? [] : [`restarted ${restarts} ×`]),
    ...(healthy === false && state === "running" ? ["not healthy"] : []),
    ...(state === "running" ? ports.map(({ container, host }) => `${host}→${container}`) : []),
  ];
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
