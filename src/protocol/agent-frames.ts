import * as z from "zod";
import { ErrorCode, ErrorFrame } from "./error-frame.ts";
import { DurableEvent, PreemptionCause } from "./event.ts";
import { Gpu, GpuTelemetry } from "./gpu.ts";
import { Count, Generation, GpuUuid, Instant, Labels, NodeId, Percent, Quantity, WorkloadId } from "./scalars.ts";
import { WorkloadState } from "./workload.ts";

/** What the agent sends. It writes these and reads none: the schemas are the coordinator's, the daemon takes their types alone. */

export const Hello = z.object({
  type: z.literal("hello"),
  node: z.object({
    id: NodeId,
    /** Raw 32-byte Ed25519 public key, base64url. */
    publicKey: z.string(),
    name: z.string().max(255),
    labels: Labels,
    bootId: z.string(),
    agentVersion: z.string(),
  }),
  /** Ed25519 over `helloBytes`, base64url. */
  signature: z.string(),
  joinToken: z.string().exactOptional(),
  /** The node asks to be known by another key from now on; `node` and `signature` are still the old key's. */
  rotation: z
    .object({
      /** Of the new key; raw 32 bytes, base64url. */
      publicKey: z.string(),
      /** The old key's over `rotationBytes`: it hands over. */
      proof: z.string(),
      /** The new key's over the same bytes: whoever asks holds it. */
      signature: z.string(),
    })
    .exactOptional(),
  /** What the node's event log still holds; both 0 when it holds nothing and never did. */
  events: z.object({ oldest: Count, newest: Count }),
  workloads: z.array(z.object({ id: WorkloadId, generation: Generation, state: WorkloadState })),
});
export type Hello = z.infer<typeof Hello>;

/** Something that keeps the node from being all it could be: no driver, no engine. `code` is stable. */
export const Problem = z.object({ code: z.string(), message: z.string() });
export type Problem = z.infer<typeof Problem>;

export const HostInfo = z.object({
  hostname: z.string().exactOptional(),
  os: z.string().exactOptional(),
  kernel: z.string().exactOptional(),
  /** Go-style name as image manifests use it: `amd64`, `arm64`. */
  architecture: z.string(),
  cpuModel: z.string().exactOptional(),
  cpus: Count,
  memoryMiB: Count,
  diskTotalMiB: Count.exactOptional(),
});
export type HostInfo = z.infer<typeof HostInfo>;

export const EngineInfo = z.object({
  kind: z.literal("docker"),
  available: z.boolean(),
  version: z.string().exactOptional(),
  apiVersion: z.string().exactOptional(),
  storageDriver: z.string().exactOptional(),
  cgroupVersion: z.string().exactOptional(),
  runtimes: z.array(z.string()).exactOptional(),
  /** What it keeps containers apart with, as it names it: `seccomp`, `apparmor`, `selinux`, `userns`, `rootless`, `cgroupns`. */
  security: z.array(z.string()).exactOptional(),
  /** What it can hold a container to: `cpu`, `memory`, `pids`. */
  limits: z.array(z.string()).exactOptional(),
});
export type EngineInfo = z.infer<typeof EngineInfo>;

/** The most that one workload may ask for. One that asks for more is refused; one that asks for nothing gets no more than this. */
export const PolicyCaps = z.object({
  cpus: Quantity.exactOptional(),
  memoryMiB: Count.exactOptional(),
  shmMiB: Count.exactOptional(),
  diskMiB: Count.exactOptional(),
  pids: Count.exactOptional(),
  ports: Count.exactOptional(),
  runSeconds: Quantity.exactOptional(),
});
export type PolicyCaps = z.infer<typeof PolicyCaps>;

export const PolicyInfo = z.object({
  images: z.array(z.string()),
  /** Only images named by their digest. */
  digestOnly: z.boolean().exactOptional(),
  maxWorkloads: Count.exactOptional(),
  hostPorts: z.string(),
  runtime: z.string().exactOptional(),
  allowRoot: z.boolean(),
  /** Whether volumes are kept between workloads; absent: yes. */
  allowCaches: z.boolean().exactOptional(),
  /** Every workload's root file system is read-only, asked for or not. */
  readOnlyRoot: z.boolean().exactOptional(),
  /** `require`: nothing runs here unless root inside is an ordinary user outside. */
  userns: z.enum(["require"]).exactOptional(),
  max: PolicyCaps.exactOptional(),
  reserve: z
    .object({ cpus: Quantity.exactOptional(), memoryMiB: Count.exactOptional(), diskMiB: Count.exactOptional() })
    .exactOptional(),
  /** Work that is taken back is gone within so long, whatever grace it asks for. */
  preemptWithinSeconds: Quantity.exactOptional(),
  /** An `assign` may take GPUs from preemptible workloads of lower priority. */
  priorityPreemption: z.boolean().exactOptional(),
  /** Images run only with a signature by a key of the provider's choice. */
  signedImages: z.boolean().exactOptional(),
});
export type PolicyInfo = z.infer<typeof PolicyInfo>;

/** Somebody keeps GPUs from being lent: nothing new is placed on them until it is lifted. */
export const Hold = z.object({
  cause: PreemptionCause,
  message: z.string(),
  /** Absent: the whole node, work without a GPU included. */
  gpus: z.array(GpuUuid).exactOptional(),
  since: Instant,
  /** When it is expected to be lifted; absent where nobody knows. */
  until: Instant.exactOptional(),
});
export type Hold = z.infer<typeof Hold>;

/** What the node has proved to be like over the last 30 days, for those who place long jobs. All counted by the node itself. */
export const Reliability = z.object({
  /** Start of what is counted. */
  since: Instant,
  upSeconds: Quantity,
  /** Time in which no agent ran: reboots, crashes, updates, a machine asleep. Time before the first start does not count. */
  downSeconds: Quantity,
  /** How workloads ended that had run here. `failed` is their own failure, `lost` the node's. */
  workloads: z.object({ succeeded: Count, failed: Count, stopped: Count, preempted: Count, lost: Count }),
  /** `noticeSeconds`: from the notice to the moment the work had to be over. */
  preemptions: z.array(
    z.object({
      cause: PreemptionCause,
      count: Count,
      noticeSeconds: z.object({ min: Quantity, p50: Quantity }),
    }),
  ),
});
export type Reliability = z.infer<typeof Reliability>;

export const ImageInfo = z.object({ digest: z.string(), tags: z.array(z.string()), sizeMiB: Quantity });
export type ImageInfo = z.infer<typeof ImageInfo>;

export const Advertise = z.object({
  type: z.literal("advertise"),
  /** Grows with every advertisement of this agent process. */
  revision: Count,
  gpus: z.array(Gpu),
  host: HostInfo,
  engine: EngineInfo,
  policy: PolicyInfo,
  images: z.array(ImageInfo),
  /** Accepting new work? `draining` after `drain` or the owner's word. */
  state: z.enum(["available", "draining"]).exactOptional(),
  /** Who keeps what from being lent, and until when. */
  holds: z.array(Hold).exactOptional(),
  reliability: Reliability.exactOptional(),
  problems: z.array(Problem).exactOptional(),
});
export type Advertise = z.infer<typeof Advertise>;

export const HostTelemetry = z.object({
  cpuPercent: Percent.exactOptional(),
  loadAverage1: Quantity.exactOptional(),
  memoryUsedMiB: Count.exactOptional(),
  memoryTotalMiB: Count.exactOptional(),
  memoryPressureSome10: Percent.exactOptional(),
  diskFreeMiB: Count.exactOptional(),
  networkRxBytes: Count.exactOptional(),
  networkTxBytes: Count.exactOptional(),
});
export type HostTelemetry = z.infer<typeof HostTelemetry>;

const Quantiles = z.object({ p50: Quantity, p99: Quantity });
export const WorkloadTelemetry = z.object({
  id: WorkloadId,
  /** Of one core; 200 = two cores busy. */
  cpuPercent: Quantity.exactOptional(),
  memoryMiB: Quantity.exactOptional(),
  memoryLimitMiB: Quantity.exactOptional(),
  gpuUtilizationPercent: Percent.exactOptional(),
  vramUsedMiB: Count.exactOptional(),
  networkRxBytes: Count.exactOptional(),
  networkTxBytes: Count.exactOptional(),
  requests: z
    .object({
      active: Count,
      queued: Count,
      total: Count,
      failed: Count,
      ttftMs: Quantiles.exactOptional(),
      durationMs: Quantiles.exactOptional(),
    })
    .exactOptional(),
});
export type WorkloadTelemetry = z.infer<typeof WorkloadTelemetry>;

export const Telemetry = z.object({
  type: z.literal("telemetry"),
  at: Instant,
  gpus: z.array(GpuTelemetry),
  host: HostTelemetry,
  workloads: z.array(WorkloadTelemetry),
  /** Samples left out since the last frame because the link was behind. */
  skipped: Count,
});
export type Telemetry = z.infer<typeof Telemetry>;

export const Events = z.object({ type: z.literal("events"), events: z.array(DurableEvent) });

export const ReplyError = z.object({
  code: ErrorCode,
  message: z.string(),
  details: z.record(z.string(), z.unknown()).exactOptional(),
});
export type ReplyError = z.infer<typeof ReplyError>;

export const Reply = z.union([
  z.object({ type: z.literal("reply"), ref: z.string(), ok: z.literal(true) }),
  z.object({ type: z.literal("reply"), ref: z.string(), ok: z.literal(false), error: ReplyError }),
]);

export const Progress = z.object({
  type: z.literal("progress"),
  workload: WorkloadId,
  phase: z.literal("pulling"),
  currentBytes: Count,
  totalBytes: Count,
});
export type Progress = z.infer<typeof Progress>;

export const Log = z.object({
  type: z.literal("log"),
  ref: z.string(),
  workload: WorkloadId,
  stream: z.enum(["stdout", "stderr"]),
  at: z.string().exactOptional(),
  data: z.string(),
});
export type Log = z.infer<typeof Log>;

export const LogEnd = z.object({ type: z.literal("logEnd"), ref: z.string(), reason: z.string() });

export const AgentFrame = z.union([Hello, Advertise, Telemetry, Events, Reply, Progress, Log, LogEnd, ErrorFrame]);
export type AgentFrame = z.infer<typeof AgentFrame>;
