import type { TensorCores } from "../../protocol/gpu.ts";
import type { Precision } from "../../protocol/scalars.ts";

/**
 * Compute capability → tensor cores. Sources: NVIDIA CUDA C++ Programming Guide, "Compute Capabilities" (table of data types
 * the tensor cores support) and "Warp Matrix Functions"; the architecture whitepapers of Volta, Turing, Ampere (GA100, GA102), Ada,
 * Hopper and Blackwell. INT4 ended with Ada; FP64 tensor operations are on the datacenter chips (8.0, 9.0, 10.x) only.
 */
const TABLE: Readonly<Record<string, { generation: number; precisions: readonly Precision[]; sparsity: boolean }>> = {
  "7.0": { generation: 1, precisions: ["fp16"], sparsity: false },
  "7.2": { generation: 1, precisions: ["fp16", "int8"], sparsity: false },
  "7.5": { generation: 2, precisions: ["fp16", "int8", "int4", "int1"], sparsity: false },
  "8.0": { generation: 3, precisions: ["fp64", "tf32", "bf16", "fp16", "int8", "int4", "int1"], sparsity: true },
  "8.6": { generation: 3, precisions: ["tf32", "bf16", "fp16", "int8", "int4", "int1"], sparsity: true },
  "8.7": { generation: 3, precisions: ["tf32", "bf16", "fp16", "int8", "int4", "int1"], sparsity: true },
  "8.9": { generation: 4, precisions: ["tf32", "bf16", "fp16", "fp8", "int8", "int4", "int1"], sparsity: true },
  "9.0": { generation: 4, precisions: ["fp64", "tf32", "bf16", "fp16", "fp8", "int8", "int1"], sparsity: true },
  "10.0": { generation: 5, precisions: ["fp64", "tf32", "bf16", "fp16", "fp8", "fp6", "fp4", "int8"], sparsity: true },
  "10.3": { generation: 5, precisions: ["fp64", "tf32", "bf16", "fp16", "fp8", "fp6", "fp4", "int8"], sparsity: true },
  "11.0": { generation: 5, precisions: ["tf32", "bf16", "fp16", "fp8", "fp6", "fp4", "int8"], sparsity: true },
  "12.0": { generation: 5, precisions: ["tf32", "bf16", "fp16", "fp8", "fp6", "fp4", "int8"], sparsity: true },
  "12.1": { generation: 5, precisions: ["tf32", "bf16", "fp16", "fp8", "fp6", "fp4", "int8"], sparsity: true },
};

/** Turing chips without tensor cores: TU116 and TU117 (GTX 16, MX, and the T400 to T1200 boards). */
const TURING_WITHOUT = /\bGTX 16\d0\b|\bMX\d{3}\b|\bT(400|500|550|600|1000|1200)\b/;

/** Tensor cores of a GPU; undefined where it has none or nobody knows. */
export function tensorCoresOf(computeCapability: string | undefined, name: string): TensorCores | undefined {
  const row = computeCapability === undefined ? undefined : TABLE[computeCapability];
  if (row === undefined || (computeCapability === "7.5" && TURING_WITHOUT.test(name))) return undefined;
  return { generation: row.generation, precisions: [...row.precisions], sparsity: row.sparsity };
}
