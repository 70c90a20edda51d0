import * as z from "zod";

/** Shared building bricks of the wire schemas. */

/** RFC 3339 in UTC with milliseconds, as `Date.prototype.toISOString` writes it. */
export const Instant = z.iso.datetime({ precision: 3 });

/** A whole number ≥ 0. */
export const Count = z.int().min(0);

/** A measured quantity ≥ 0 that need not be whole. */
export const Quantity = z.number().min(0);

/** 0–100. Some drivers round a busy counter above 100; readers clamp before it gets here. */
export const Percent = z.number().min(0).max(100);

/** Workload id: safe in container names, file names and URLs. */
export const WorkloadId = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/, "must be 1-63 of A-Z a-z 0-9 _ . - and start with a letter or digit");

/** Generation of a workload: raised by the coordinator each time it changes what it wants. */
export const Generation = z.int().min(0);

/** nvidia-smi's `GPU-…` or `MIG-…` identifier. */
export const GpuUuid = z.string().min(1).max(120);

/** First 26 characters of lower-case base32 over SHA-256 of the node's public key. */
export const NodeId = z.string().regex(/^[a-z2-7]{26}$/, "must be 26 characters of lower-case base32");

/** Labels of a node: `site = "garage"`. */
export const Labels = z.record(z.string().max(63), z.string().max(255));

/** Port number. */
export const Port = z.int().min(1).max(65535);

/** Chosen by the coordinator; comes back in `reply.ref`. */
export const CommandId = z.string().min(1).max(128);

/** Number formats a GPU's tensor cores multiply. */
export const Precision = z.enum(["fp64", "tf32", "bf16", "fp16", "fp8", "fp6", "fp4", "int8", "int4", "int1"]);
export type Precision = z.infer<typeof Precision>;
