import type { EngineInfo, ImageInfo } from "../protocol/agent-frames.ts";
import type { DurableEvent, EventBody } from "../protocol/event.ts";
import type { Secret } from "../protocol/secret.ts";
import type { PortBinding, RegistryAuth } from "../protocol/workload.ts";

/**
 * What workloads need of the machine: the doors that `engine/` and `store/` fill. They are declared here because this
 * is the room that uses them; the rooms that fill them import these types and nothing else.
 */

/** An image as the engine holds it after a pull. */
export interface LocalImage {
  /** The engine's image id, `sha256:…`. */
  id: string;
  /** Registry digest `sha256:…` where the image came from a registry, else the id. */
  digest: string;
  sizeBytes: number;
  /** As in the image's config, Go names: `amd64`, `arm64`. */
  architecture: string;
  os: string;
  /** The image's own `Env`, e.g. to read `NVIDIA_REQUIRE_CUDA`. */
  env: string[];
  /** The image's own `User`; "" is root. */
  user: string;
}

export interface PullOptions {
  auth?: Secret<RegistryAuth>;
  /** Give up when no byte and no status came for this long. A slow pull that moves is never cut. */
  noProgressMs: number;
  /** Bytes over all layers known so far; called as often as the engine reports. */
  onProgress: (currentBytes: number, totalBytes: number) => void;
  signal: AbortSignal;
}

/** Everything a container is made from. The engine adds nothing that is not here or in `docs/security.md`. */
export interface ContainerSpec {
  /** `gpunode-<node>-<workload>-<generation>`; the same name again means the same container. */
  name: string;
  labels: Record<string, string>;
  /** Image id or `repo@sha256:…`: what was pulled and checked, not a tag that may move meanwhile. */
  image: string;
  entrypoint?: string[];
  command?: string[];
  env: Record<string, string | Secret>;
  workdir?: string;
  user?: string;
  /** UUIDs of GPUs or MIG instances; [] = none, and the container is then told to see none. */
  gpus: string[];
  cpus: number;
  memoryMiB: number;
  /** Nobody counts on having this memory: where the machine runs out of it, this container goes first. */
  memoryIsUnpromised?: boolean;
  shmMiB: number;
  pids: number;
  /** Its writable layer is held to this where the engine can; see `Engine.written` for where it cannot. */
  diskMiB: number;
  /** Nothing of the image's file system can be written to; `/tmp` is in memory. */
  readOnlyRoot?: boolean;
  ports: PortBinding[];
  /** Host interface the ports are published on. */
  hostIp: string;
  /** Docker volumes kept between workloads. */
  volumes: { name: string; path: string }[];
  /**
   * Folder inside that `putFile` writes to. It is a volume of the container's own that goes with it, and so is there also where its
   * root file system is read-only. Only root may write to it.
   */
  inbox?: string;
  runtime?: string;
  /** Id of the network it is on; the engine's default bridge where absent. */
  network?: string;
  stopSignal: string;
}

/** How a container stands, read from the engine. */
export interface ContainerState {
  id: string;
  name: string;
  labels: Record<string, string>;
  status: "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead";
  /** Host pid of the first process; 0 where it does not run. */
  pid: number;
  /** Meaningful where `status` is `exited` or `dead`. */
  exitCode: number;
  oomKilled: boolean;
  /** The engine's own words on a failed start; "" where there are none. */
  error: string;
  /** RFC 3339; undefined where it has not happened. */
  startedAt?: string;
  finishedAt?: string;
  /** UUIDs asked for through DeviceRequests, as the engine recorded them. */
  gpus: string[];
}

export interface LogChunk {
  stream: "stdout" | "stderr";
  /** Bytes as the container wrote them, as far as the engine's log keeps them: Docker replaces what is not UTF-8. */
  data: Buffer;
}

export interface LogOptions {
  follow: boolean;
  /** Last so many lines; all where absent. */
  tail?: number;
  /** RFC 3339. */
  since?: string;
  signal: AbortSignal;
}

/** A file of a few kilobytes for a container. */
export interface SmallFile {
  /** Absolute, in the container; directly in its `inbox`. */
  path: string;
  text: string;
  /** It belongs to root. */
  mode: 0o644 | 0o755;
}

/** One reading of what a container uses; counters grow from the container's start. */
export interface ContainerUsage {
  /** Of one core, since the reading before; undefined on the first. */
  cpuPercent?: number;
  cpuSeconds: number;
  memoryMiB: number;
  memoryLimitMiB?: number;
  networkRxBytes: number;
  networkTxBytes: number;
}

/** What is on the engine's disk at one moment, in bytes as the files' lengths tell. */
export interface DiskAccount {
  /** This node's running containers: what each has written over its image, and the volumes it has mounted. */
  containers: { id: string; layerBytes: number; volumes: { name: string; path: string }[] }[];
  /** Every volume there is, whosever. */
  volumeBytes: ReadonlyMap<string, number>;
}

/** Something that happened to one of our containers. */
export interface EngineEvent {
  containerId: string;
  action: "start" | "die" | "oom" | "destroy" | "other";
}

/**
 * A container engine. Every method throws `GpunodeError` with `engine_unavailable` when the engine does not answer,
 * and touches only containers that carry our labels (`LABEL_NODE`).
 */
export interface Engine {
  /** Never throws: an engine that is away is `available: false`. */
  info(signal?: AbortSignal): Promise<EngineInfo>;
  /**
   * Throws `pull_failed` with the registry's own reason, `insufficient_disk`, `invalid_spec` where the name is none or the
   * image has no variant for this machine (`details.reason` `wrong_architecture`), or the signal's reason.
   */
  pull(image: string, options: PullOptions): Promise<LocalImage>;
  /** undefined where the engine does not have it. */
  image(reference: string): Promise<LocalImage | undefined>;
  images(): Promise<ImageInfo[]>;
  /**
   * Creates, or finds the container of that name if it is ours. Returns its id. Throws `invalid_spec`, `pull_failed` where
   * the image is gone again, `unsupported` where the engine ignores GPU requests or knows no such runtime, or `internal`.
   */
  create(spec: ContainerSpec): Promise<string>;
  /**
   * Throws `invalid_spec` where the command cannot be run, `no_matching_gpu` where the engine cannot attach GPUs or the driver does
   * not know one of them, `driver_too_old`, or `internal`, with the engine's words.
   */
  start(id: string): Promise<void>;
  /**
   * Sends the signal, where one is given, waits `graceSeconds`, kills. `onSignal` when it has been sent. Resolves when it is down. A
   * container that is gone is no error.
   */
  stop(id: string, options: { signal: string | undefined; graceSeconds: number; onSignal?: () => void }): Promise<void>;
  kill(id: string, signal: string): Promise<void>;
  /** Removes the container and its anonymous volumes. A container that is gone is no error. */
  remove(id: string): Promise<void>;
  /** undefined where there is no such container, or it is not ours. `id` may be its name. */
  inspect(id: string): Promise<ContainerState | undefined>;
  /** All containers with our label for this node, running or not. */
  list(nodeId: string): Promise<ContainerState[]>;
  /**
   * Settles when the container has stopped, with its final state; undefined where it is gone. Throws
   * `engine_unavailable` when the engine goes away meanwhile (never hangs on a dead connection).
   */
  wait(id: string, signal: AbortSignal): Promise<ContainerState | undefined>;
  /** Output in order, with back-pressure: the engine is read no faster than the iterator is. */
  logs(id: string, options: LogOptions): AsyncIterable<LogChunk>;
  /** One reading now. undefined where the container does not run. */
  usage(id: string): Promise<ContainerUsage | undefined>;
  /**
   * What lies on the disk. The engine walks through all files of containers and volumes for it: not to be asked often. A file that was
   * deleted and is still open is not seen.
   */
  diskAccount(signal: AbortSignal): Promise<DiskAccount>;
  /** Runs a command inside; output is cut at 64 KiB. `exitCode` is undefined where the time ran out. */
  exec(
    id: string,
    argv: string[],
    options: { timeoutMs: number; signal: AbortSignal },
  ): Promise<{ exitCode?: number; output: string }>;
  /**
   * Writes a small file into the container's inbox, over the one before it; a reader sees either whole. Needs no shell and no program
   * in the image, and nothing the container does can lead it elsewhere. A container that is gone is no error. Throws `unsupported` where
   * the container has no inbox there, `internal` with the engine's words, or the signal's reason.
   */
  putFile(id: string, file: SmallFile, options: { signal: AbortSignal }): Promise<void>;
}

/**
 * Where a provider wants signatures: what an image must pass before anything is made of it. `image` is `host/path@sha256:…`, so what
 * was looked at is what runs. Throws `image_not_allowed` where no signature by one of the provider's keys is found, `policy_denied`
 * where it cannot be looked for here, or the signal's reason.
 */
export type SignatureCheck = (
  image: string,
  options: { auth?: Secret<RegistryAuth>; signal: AbortSignal },
) => Promise<void>;

/** Networks of the workloads' own, which keep them off the owner's. */
export interface WorkloadNetworks {
  /** Why no workload can be isolated now, as a `policy_denied` says it; undefined where one can, or it is not known yet. */
  problem(): string | undefined;
  /**
   * Makes sure of the network of a container of that name and returns its id, once isolation is known to hold. Throws `policy_denied` where it
   * does not, `engine_unavailable`, `internal`, or the signal's reason.
   */
  open(container: { name: string; labels: Record<string, string> }, signal: AbortSignal): Promise<string>;
  /** Removes the network of that container, which is gone. Never throws: what cannot be removed now is removed later. */
  close(name: string): Promise<void>;
}

/** Label on every container of ours: the node's id. */
export const LABEL_NODE = "org.gpunode.node";
export const LABEL_WORKLOAD = "org.gpunode.workload";
export const LABEL_GENERATION = "org.gpunode.generation";

/** One row of the journal. `body` is a `WorkloadRecord` in the workload room's own words. */
export interface JournalRow {
  key: string;
  body: unknown;
}

/**
 * The node's memory. What `commit` returns from is on the disk: rows and events together, or nothing at all. Throws
 * where the disk refuses; nothing was recorded then and the caller must not act.
 */
export interface Journal {
  commit(change: { put: JournalRow[]; remove: string[]; events: EventBody[] }): DurableEvent[];
  rows(): JournalRow[];
  /** Resolves when the coordinator holds event `seq`, or after `timeoutMs`; never rejects. */
  told(seq: number, timeoutMs: number): Promise<boolean>;
}

/** The part of a pino logger this room uses: fields first, then the sentence. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
