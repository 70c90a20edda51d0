import * as z from "zod";
import { HealthReason, HealthStatus, PressureLevel } from "./gpu-health.ts";
import { Count, Generation, GpuUuid, Instant, Quantity, WorkloadId } from "./scalars.ts";
import { PortBinding, WorkloadState } from "./workload.ts";

/** Durable events: kept on disk until acked, sent in order of `seq`, at least once. */

export const Timings = z.object({
  pullMs: Quantity.exactOptional(),
  createMs: Quantity.exactOptional(),
  startMs: Quantity.exactOptional(),
});

export const WorkloadEvent = z.object({
  kind: z.literal("workload"),
  workload: WorkloadId,
  generation: Generation,
  state: WorkloadState,
  /** Stable code: an error code of the protocol, or one of `docs/protocol.md`'s reasons. */
  reason: z.string().exactOptional(),
  message: z.string().exactOptional(),
  exitCode: z.int().exactOptional(),
  oomKilled: z.boolean().exactOptional(),
  healthy: z.boolean().exactOptional(),
  restarts: Count.exactOptional(),
  containerId: z.string().exactOptional(),
  imageDigest: z.string().exactOptional(),
  gpus: z.array(GpuUuid).exactOptional(),
  ports: z.array(PortBinding).exactOptional(),
  timings: Timings.exactOptional(),
});
export type WorkloadEvent = z.infer<typeof WorkloadEvent>;

export const PreemptionCause = z.enum([
  "owner",
  "schedule",
  "foreign_process",
  "host_shutdown",
  "cloud_notice",
  "coordinator",
  "priority",
  "gpu_fault",
  "host_pressure",
]);
export type PreemptionCause = z.infer<typeof PreemptionCause>;

export const PreemptionEvent = z.object({
  kind: z.literal("preemption"),
  phase: z.enum(["notice", "checkpointed", "finished", "withdrawn"]),
  cause: PreemptionCause,
  workloads: z.array(WorkloadId),
  gpus: z.array(GpuUuid),
  deadline: Instant.exactOptional(),
  message: z.string().exactOptional(),
});

export const PressureEvent = z.object({
  kind: z.literal("pressure"),
  resource: z.enum(["vram", "host_memory", "disk"]),
  gpu: GpuUuid.exactOptional(),
  level: PressureLevel,
  /** Of what can be used: VRAM less what the driver reserves, memory less what could not be given out, disk. */
  valuePercent: Quantity,
  /** The threshold of the level it came to; on the way down, the one it fell below. */
  thresholdPercent: Quantity,
  freeMiB: Count.exactOptional(),
  /** True where a GPU's memory is the host's (GB10, Jetson): `host_memory` is then the GPU's memory too. */
  unified: z.boolean().exactOptional(),
});
export type PressureEvent = z.infer<typeof PressureEvent>;

export const GpuHealthEvent = z.object({
  kind: z.literal("gpuHealth"),
  gpu: GpuUuid,
  status: HealthStatus,
  /** Why it is not healthy; on a healthy GPU, what happened to it and passed (an Xid that was an application's fault). */
  reasons: z.array(HealthReason),
});
export type GpuHealthEvent = z.infer<typeof GpuHealthEvent>;

/**
 * What a workload used from `from` to `to`. The intervals of a generation follow each other without gap or overlap, from its
 * start to its end. `signature` is the node's Ed25519 key over the record without it, as RFC 8785 canonical JSON.
 */
export const UsageEvent = z.object({
  kind: z.literal("usage"),
  workload: WorkloadId,
  generation: Generation,
  from: Instant,
  to: Instant,
  gpus: z.array(GpuUuid),
  gpuSeconds: Quantity,
  gpuUtilizationMeanPercent: Quantity.exactOptional(),
  vramPeakMiB: Count.exactOptional(),
  energyJoules: Quantity.exactOptional(),
  cpuSeconds: Quantity.exactOptional(),
  networkRxBytes: Count.exactOptional(),
  networkTxBytes: Count.exactOptional(),
  /** Seconds of the interval in which its GPUs were sampled: what mean, peak and energy speak of. */
  observedSeconds: Quantity.exactOptional(),
  /** The last of this generation. */
  final: z.boolean(),
  signature: z.string(),
});
export type UsageEvent = z.infer<typeof UsageEvent>;

export const NodeEvent = z.object({
  kind: z.literal("node"),
  state: z.enum(["started", "draining", "available", "stopping"]),
  /** For `draining` and `available` the cause of the hold that began or ended, or what the engine did. */
  reason: z.string().exactOptional(),
  message: z.string().exactOptional(),
  /** Only these GPUs are held back, or lent again; absent where it is the whole node. */
  gpus: z.array(GpuUuid).exactOptional(),
});

export const GapEvent = z.object({
  kind: z.literal("gap"),
  fromSeq: Count,
  toSeq: Count,
  reason: z.string(),
});

/** What happened, before the log has given it a place. */
export const EventBody = z.discriminatedUnion("kind", [
  WorkloadEvent,
  PreemptionEvent,
  PressureEvent,
  GpuHealthEvent,
  UsageEvent,
  NodeEvent,
  GapEvent,
]);
export type EventBody = z.infer<typeof EventBody>;

/** An event with its place in the node's log. `seq` starts at 1 and has no hole. */
export const DurableEvent = z.intersection(z.object({ seq: z.int().min(1), at: Instant }), EventBody);
export type DurableEvent = z.infer<typeof DurableEvent>;
