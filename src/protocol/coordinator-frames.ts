import * as z from "zod";
import { ErrorFrame } from "./error-frame.ts";
import { CommandId, Count, Instant, NodeId, Quantity, WorkloadId } from "./scalars.ts";
import { RegistryAuth, Workload } from "./workload.ts";

/** What the coordinator sends. */

export const Challenge = z.object({
  type: z.literal("challenge"),
  /** 32 random bytes, base64url. */
  nonce: z.string().regex(/^[A-Za-z0-9_-]{43}=?$/, "must be 32 bytes in base64url"),
  coordinatorId: z.string().max(255),
  time: z.string(),
});
export type Challenge = z.infer<typeof Challenge>;

export const Welcome = z.object({
  type: z.literal("welcome"),
  sessionId: z.string().min(1).max(255),
  heartbeatSeconds: z.number().min(1).max(3600),
  leaseSeconds: z.number().min(1),
  telemetryIntervalMs: z.int().min(100).max(3_600_000),
  acked: Count,
  /** The id of the key of `hello.rotation`, by which the node is known from now on; absent where the old key stays. */
  rotatedTo: NodeId.exactOptional(),
});
export type Welcome = z.infer<typeof Welcome>;

export const Reject = z.object({
  type: z.literal("reject"),
  code: z.string(),
  message: z.string(),
  retryAfterSeconds: Quantity.exactOptional(),
});
export type Reject = z.infer<typeof Reject>;

export const Ack = z.object({ type: z.literal("ack"), seq: Count });

/**
 * The complete desired set. Each entry is parsed on its own (`Workload`), so that one bad entry costs that workload
 * alone; that is why the element type is unknown here.
 */
export const Sync = z.object({
  type: z.literal("sync"),
  id: CommandId.exactOptional(),
  workloads: z.array(z.unknown()).describe("Each a workload; read one by one, a bad one harms no other"),
});

const command = { id: CommandId };
const grace = { graceSeconds: Quantity.max(86_400).exactOptional() };

export const Assign = z.object({ type: z.literal("assign"), ...command, workload: Workload });
export const Release = z.object({ type: z.literal("release"), ...command, workload: WorkloadId, ...grace });
export const Preempt = z.object({
  type: z.literal("preempt"),
  ...command,
  workload: WorkloadId,
  ...grace,
  reason: z.string().max(1000).exactOptional(),
});
export const Drain = z.object({ type: z.literal("drain"), ...command, ...grace });
export const Resume = z.object({ type: z.literal("resume"), ...command });
export const Prefetch = z.object({
  type: z.literal("prefetch"),
  ...command,
  image: z.string().min(1).max(512),
  registryAuth: RegistryAuth.exactOptional(),
});
export const Configure = z.object({
  type: z.literal("configure"),
  ...command,
  telemetryIntervalMs: z.int().min(100).max(3_600_000).exactOptional(),
  leaseSeconds: z.number().min(1).exactOptional(),
});
export const Logs = z.object({
  type: z.literal("logs"),
  ...command,
  workload: WorkloadId,
  follow: z.boolean().default(false),
  /** Only the last so many lines. */
  tail: Count.exactOptional(),
  since: Instant.exactOptional(),
});
export const LogsStop = z.object({ type: z.literal("logsStop"), ...command, ref: z.string() });

/** What a welcomed session may tell the agent to do; each has an `id` and is answered with one `reply`. */
export const Command = z.discriminatedUnion("type", [
  Assign,
  Release,
  Preempt,
  Drain,
  Resume,
  Prefetch,
  Configure,
  Logs,
  LogsStop,
]);
export type Command = z.infer<typeof Command>;

export const CoordinatorFrame = z.union([Challenge, Welcome, Reject, Sync, Ack, Command, ErrorFrame]);
export type CoordinatorFrame = z.infer<typeof CoordinatorFrame>;
