import type { LinkStatus } from "../link/needs.ts";
import type { EngineInfo, Hold, HostInfo, Problem, Reliability } from "../protocol/agent-frames.ts";
import type { PreemptionCause } from "../protocol/event.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { Sample } from "../telemetry/collector.ts";
import type { WorkloadRecord } from "../workload/record.ts";
import {
  type ConnectionStatus,
  type NodeStatus,
  SNAPSHOT_VERSION,
  type Snapshot,
  type WorkloadStatus,
} from "./snapshot.ts";

/** All the daemon knows at one moment, in its rooms' own words. Times are milliseconds since the epoch. */
export interface AgentView {
  now: number;
  /** The clock for deadlines, at the same moment. */
  steady: number;
  node: Omit<NodeStatus, "startedAt" | "uptimeSeconds"> & { startedAt: number };
  /** undefined where no coordinator is configured. */
  link: LinkStatus | undefined;
  unackedEvents: number;
  gpus: readonly Gpu[];
  holds: readonly Hold[];
  host: HostInfo;
  engine: EngineInfo;
  workloads: readonly { record: WorkloadRecord; pull: WorkloadStatus["pull"] | undefined }[];
  /** The newest sample; undefined before the first. */
  sample: Sample | undefined;
  /** undefined where nothing is known yet. */
  reliability: Reliability | undefined;
  /** Where a browser finds the local page. */
  page: string | undefined;
  problems: readonly Problem[];
}

/** The snapshot the owner sees. Pure. */
export function describe(view: AgentView): Snapshot {
  const { now, node, sample, reliability } = view;
  const telemetry = new Map(sample?.gpus.map((gpu) => [gpu.uuid, gpu]));
  const usage = new Map(sample?.workloads.map(({ id, ...figures }) => [id, figures]));
  const workloads = view.workloads
    .map(({ record, pull }) =>
      workloadStatus(record, pull, record.finishedAt === undefined ? usage.get(record.id) : undefined, (at) =>
        instant(now + at - view.steady),
      ),
    )
    .sort((a, b) => newestFirst(a.acceptedAt, b.acceptedAt) || b.generation - a.generation);
  const lastError = lastErrorOf(view);
  return {
    snapshotVersion: SNAPSHOT_VERSION,
    at: instant(now),
    node: {
      ...node,
      startedAt: instant(node.startedAt),
      uptimeSeconds: Math.round((now - node.startedAt) / 1000),
    },
    connection: connection(view),
    gpus: view.gpus.map((gpu) => {
      const figures = telemetry.get(gpu.uuid);
      return figures === undefined ? gpu : { ...gpu, telemetry: figures };
    }),
    holds: [...view.holds],
    host: { info: view.host, ...(sample !== undefined && { telemetry: sample.host }) },
    engine: view.engine,
    workloads,
    ...(reliability !== undefined && { reliability }),
    ...(view.page !== undefined && { page: view.page }),
    problems: [...view.problems],
    ...(lastError !== undefined && { lastError }),
  };
}

function connection({ link, unackedEvents, node }: AgentView): ConnectionStatus {
  if (link === undefined) return { state: "off", since: instant(node.startedAt), unackedEvents };
  const { state, url, since, sessionId, lastError, retryAt } = link;
  return {
    state: state === "refused" ? "waiting" : state,
    url,
    since: instant(since),
    unackedEvents,
    ...(sessionId !== undefined && { sessionId }),
    ...(lastError !== undefined && { lastError }),
    ...(state === "refused" && { refused: true }),
    ...(retryAt !== undefined && { retryAt: instant(retryAt) }),
  };
}

function workloadStatus(
  record: WorkloadRecord,
  pull: WorkloadStatus["pull"] | undefined,
  usage: WorkloadStatus["usage"] | undefined,
  /** An instant of the clock for deadlines. */
  when: (at: number) => string,
): WorkloadStatus {
  const { id, generation, state, spec, gpus, ports, restarts, acceptedAt, startedAt, finishedAt } = record;
  const { healthy, reason, message, exitCode, oomKilled } = record;
  const notice = noticeOf(record, when);
  const since = finishedAt ?? (state === "running" ? startedAt : undefined);
  return {
    id,
    generation,
    state,
    image: spec.image,
    gpus,
    ports,
    restarts,
    acceptedAt: instant(acceptedAt),
    ...(notice !== undefined && { notice }),
    ...(since !== undefined && { since: instant(since) }),
    ...(startedAt !== undefined && { startedAt: instant(startedAt) }),
    ...(finishedAt !== undefined && { finishedAt: instant(finishedAt) }),
    ...(healthy !== undefined && { healthy }),
    ...(reason !== undefined && { reason }),
    ...(message !== undefined && { message }),
    ...(exitCode !== undefined && { exitCode }),
    ...(oomKilled !== undefined && { oomKilled }),
    ...(pull !== undefined && { pull }),
    ...(usage !== undefined && { usage }),
  };
}

/** While it is on its way out, or knows that it will be. */
function noticeOf(
  { finishedAt, stop, notice }: WorkloadRecord,
  when: (at: number) => string,
): WorkloadStatus["notice"] {
  if (finishedAt !== undefined) return undefined;
  const told = (cause: PreemptionCause, message?: string, at?: number) => ({
    cause,
    ...(message !== undefined && { message }),
    ...(at !== undefined && { deadline: when(at) }),
  });
  if (stop?.preemption !== undefined)
    return told(stop.preemption.cause, stop.message, stop.killAt ?? stop.preemption.dueAt);
  if (stop !== undefined || notice === undefined || notice.withdrawn === true) return undefined;
  return told(notice.cause, notice.message, notice.deadlineAt);
}

/** The newest of what went wrong: a workload that failed, or the link. */
function lastErrorOf({ workloads, link }: AgentView): Snapshot["lastError"] {
  const errors = workloads.flatMap(({ record: { id, state, message, reason, finishedAt } }) =>
    (state === "failed" || state === "rejected") && finishedAt !== undefined
      ? [{ at: finishedAt, message: `workload ${id} ${state}: ${message ?? reason ?? "no reason known"}` }]
      : [],
  );
  if (link?.lastError !== undefined) errors.push({ at: link.since, message: `coordinator: ${link.lastError}` });
  const newest = errors.sort((a, b) => b.at - a.at)[0];
  return newest === undefined ? undefined : { ...newest, at: instant(newest.at) };
}

function instant(ms: number): string {
  return new Date(ms).toISOString();
}

/** Instants of ISO 8601, all UTC and to the millisecond. By their letters: a comparison by a language's rules would load those. */
function newestFirst(a: string, b: string): number {
  return a === b ? 0 : a < b ? 1 : -1;
}
