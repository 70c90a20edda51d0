import * as z from "zod";
import { PreemptionCause, Timings, type WorkloadEvent } from "../protocol/event.ts";
import { Count, Generation, GpuUuid, WorkloadId } from "../protocol/scalars.ts";
import { hiding, Secret } from "../protocol/secret.ts";
import { PortBinding, type RegistryAuth, Workload, WorkloadState } from "../protocol/workload.ts";
import { Limits } from "./limits.ts";

/** A workload as it may lie on disk: without the secrets it came with. */
export const StoredWorkload = Workload.omit({ registryAuth: true, secretEnv: true });
export type StoredWorkload = z.infer<typeof StoredWorkload>;

/** Secrets a workload came with; they live in memory only. */
export interface Secrets {
  registryAuth?: Secret<RegistryAuth>;
  secretEnv: Record<string, Secret>;
}

/** Takes the secrets out of what came over the wire. */
export function secretsOf({ registryAuth, secretEnv }: Pick<Workload, "registryAuth" | "secretEnv">): Secrets {
  return {
    ...(registryAuth !== undefined && { registryAuth: new Secret(registryAuth) }),
    secretEnv: Object.fromEntries(Object.entries(secretEnv).map(([name, value]) => [name, new Secret(value)])),
  };
}

/** Takes a workload's secrets out of words that others chose: see `hiding`. */
export function hidingSecrets(secrets: Secrets | undefined): (text: string) => string {
  if (secrets === undefined) return (text) => text;
  const { registryAuth, secretEnv } = secrets;
  return hiding([
    ...(registryAuth === undefined ? [] : credentialsIn(registryAuth)),
    ...Object.values(secretEnv).map((value) => value.reveal()),
  ]);
}

/** What of a login must not be shown; the user's name may be. */
function credentialsIn(auth: Secret<RegistryAuth>): string[] {
  const login = auth.reveal();
  return "identityToken" in login ? [login.identityToken] : [login.password];
}

/** Milliseconds since the epoch, by either clock; what lies beyond the year 9999 was not written by an agent. */
const LATEST_MS = Date.UTC(9999, 11, 31);
const Moment = z.number().min(-LATEST_MS).max(LATEST_MS);

/** Why a workload is being ended before its own end, and how. Once set it is only ever replaced by a harder one. */
export const StopOrder = z.object({
  /** Terminal state it leads to. */
  outcome: z.enum(["stopped", "preempted", "failed"]),
  /** Stable code for the event: `released`, `not_assigned`, `replaced`, `max_runtime`, `disconnected`, `preempted` … */
  reason: z.string(),
  message: z.string().exactOptional(),
  graceSeconds: z.number().min(0),
  /** By the steady clock, in milliseconds; the kill comes no later than this, also after a restart of the agent. */
  killAt: Moment.exactOptional(),
  /** The stop signal has been sent: an agent that goes on from here does not send it again. */
  signalled: z.boolean().exactOptional(),
  /**
   * Set where somebody takes the GPU back: the workload was given notice and may checkpoint first. `noticeSeq` is the event
   * that told it, `noticedAt` when and `dueAt` the deadline it told, by the steady clock; `checkpointUntil` is set when the checkpoint has begun; `checkpointed`
   * when it is over.
   */
  preemption: z
    .object({
      cause: PreemptionCause,
      noticeSeq: Count.exactOptional(),
      noticedAt: Moment.exactOptional(),
      dueAt: Moment.exactOptional(),
      checkpointUntil: Moment.exactOptional(),
      checkpointed: z.boolean().exactOptional(),
    })
    .exactOptional(),
});
export type StopOrder = z.infer<typeof StopOrder>;

/**
 * Notice that its GPUs will be taken back, while its end has not begun. All times by the steady clock, in milliseconds. A notice that
 * was withdrawn stays here, so that the tenant is told of that too.
 */
export const Notice = z.object({
  cause: PreemptionCause,
  message: z.string().exactOptional(),
  /** The event that told it. */
  seq: Count.exactOptional(),
  noticedAt: Moment,
  /** It must be over by then; absent in a mere warning. */
  deadlineAt: Moment.exactOptional(),
  /** Its end begins then, so that checkpoint and grace fit before the deadline. */
  beginAt: Moment.exactOptional(),
  withdrawn: z.boolean().exactOptional(),
});
export type Notice = z.infer<typeof Notice>;

/**
 * All that is known of one generation of one workload: what is wanted (`spec`, `stop`), and what has been done. This
 * is the row on disk; a restarted agent goes on from here and from what the engine shows.
 */
export const WorkloadRecord = z.object({
  id: WorkloadId,
  generation: Generation,
  spec: StoredWorkload,
  /** What it is held to, as decided when it was taken in; absent in a record of an older release. */
  limits: Limits.exactOptional(),
  state: WorkloadState,
  /** It came with secrets, which are not stored: before it has a container it needs its spec again after a restart. */
  hadSecrets: z.boolean(),
  gpus: z.array(GpuUuid),
  ports: z.array(PortBinding),
  stop: StopOrder.exactOptional(),
  notice: Notice.exactOptional(),
  containerId: z.string().exactOptional(),
  imageId: z.string().exactOptional(),
  imageDigest: z.string().exactOptional(),
  restarts: Count,
  /** `finishedAt` of the end that the last restart was counted for. */
  restartedAfter: z.string().exactOptional(),
  healthy: z.boolean().exactOptional(),
  exitCode: z.int().exactOptional(),
  oomKilled: z.boolean().exactOptional(),
  reason: z.string().exactOptional(),
  message: z.string().exactOptional(),
  timings: Timings,
  /** By the wall clock, milliseconds since the epoch. */
  acceptedAt: Moment,
  startedAt: Moment.exactOptional(),
  /** The same moment by the steady clock. */
  startedSteady: Moment.exactOptional(),
  finishedAt: Moment.exactOptional(),
});
export type WorkloadRecord = z.infer<typeof WorkloadRecord>;

/** The notice in force; undefined where there is none, or its end has been ordered already. */
export function pendingNotice({ notice, stop }: Pick<WorkloadRecord, "notice" | "stop">): Notice | undefined {
  return stop === undefined && notice?.withdrawn !== true ? notice : undefined;
}

/** The record of a workload that is taken in at `now`, with the GPUs it gets. */
export function newRecord(workload: Workload, gpus: string[], now: number): WorkloadRecord {
  const { registryAuth, secretEnv, ...spec }: Workload = workload;
  const stored: StoredWorkload = spec;
  return {
    id: workload.id,
    generation: workload.generation,
    spec: stored,
    state: "accepted",
    hadSecrets: registryAuth !== undefined || Object.keys(secretEnv).length > 0,
    gpus,
    ports: [],
    restarts: 0,
    timings: {},
    acceptedAt: now,
  };
}

/** The record of a workload that was not taken in, and why. */
export function rejectedRecord(
  workload: Workload,
  { code, message }: { code: string; message: string },
  now: number,
): WorkloadRecord {
  return { ...newRecord(workload, [], now), state: "rejected", reason: code, message, finishedAt: now };
}

/** Key of a record in the store: one row for each generation. */
export function recordKey(record: { id: string; generation: number }): string {
  return `${record.id}#${record.generation}`;
}

/** What is left to know of a generation whose record is lost. */
export interface Lost {
  id: string;
  generation: number;
  containerId?: string;
  gpus?: readonly string[];
}

/**
 * What stands for a generation whose record is lost: it has ended, and the same generation is not run again. Where `gpus` are known
 * they stay held until its container is down. undefined where id and generation are none.
 */
export function lostRecord(of: Lost, told: { now: number; message: string }): WorkloadRecord | undefined {
  const workload = Workload.safeParse({ id: of.id, generation: of.generation, image: "unknown" });
  if (!workload.success) return undefined;
  const { registryAuth: _, secretEnv: __, ...spec } = workload.data;
  return {
    id: of.id,
    generation: of.generation,
    spec,
    state: "lost",
    reason: "record_lost",
    message: told.message,
    hadSecrets: false,
    gpus: [...(of.gpus ?? [])],
    ports: [],
    // There may be a container: it is looked for by its name, and taken down.
    imageId: "unknown",
    ...(of.containerId !== undefined && { containerId: of.containerId }),
    restarts: 0,
    timings: {},
    acceptedAt: told.now,
    finishedAt: told.now,
  };
}

/** Name of the container of a record. The same name again means the same container, so a create can be repeated. */
export function containerName(record: { id: string; generation: number }, nodeId: string): string {
  // Two nodes may share an engine, and two coordinators may choose the same id.
  return `gpunode-${nodeId.slice(0, 6)}-${record.id}-${record.generation}`;
}

/** What a coordinator may place or have ended elsewhere: everything it can know of a record, as the event that tells it. */
export function eventOf(record: WorkloadRecord): WorkloadEvent {
  const { id, generation, state, gpus, ports, restarts, timings } = record;
  return {
    kind: "workload",
    workload: id,
    generation,
    state,
    ...pick(record, ["reason", "message", "exitCode", "oomKilled", "healthy", "containerId", "imageDigest"]),
    ...(restarts > 0 && { restarts }),
    ...(gpus.length > 0 && { gpus }),
    ...(ports.length > 0 && { ports }),
    ...(Object.keys(timings).length > 0 && { timings }),
  };
}

function pick<T extends object, K extends keyof T>(from: T, keys: readonly K[]): Pick<T, K> {
  const out: Partial<Pick<T, K>> = {};
  for (const key of keys) if (from[key] !== undefined) out[key] = from[key];
  return out as Pick<T, K>;
}
