import * as z from "zod";
import { Health, PressureLevel } from "./gpu-health.ts";
import { Count, GpuUuid, Percent, Precision, Quantity, WorkloadId } from "./scalars.ts";

export const TensorCores = z.object({
  /** NVIDIA's generation of the tensor core, 1 (Volta) to 5 (Blackwell). */
  generation: z.int().min(1).exactOptional(),
  precisions: z.array(Precision),
  /** 2:4 structured sparsity doubles the rate (Ampere and later). */
  sparsity: z.boolean(),
});
export type TensorCores = z.infer<typeof TensorCores>;

export const MigInstance = z.object({
  uuid: GpuUuid,
  profile: z.string(),
  vramMiB: Count,
  gpuInstanceId: Count,
  computeInstanceId: Count,
  allocatedTo: WorkloadId.exactOptional(),
});
export type MigInstance = z.infer<typeof MigInstance>;

export const GpuLink = z.object({
  gpu: GpuUuid,
  kind: z.enum(["nvlink", "pcie"]),
  /** NVLinks between the two. */
  count: Count.exactOptional(),
  /**
   * The way over PCIe in `nvidia-smi topo`'s terms: one PCIe switch (`pix`), several (`pxb`), one host bridge (`phb`), one NUMA node
   * (`node`), across sockets (`sys`).
   */
  path: z.enum(["pix", "pxb", "phb", "node", "sys"]).exactOptional(),
});
export type GpuLink = z.infer<typeof GpuLink>;

export const Pci = z.object({
  busId: z.string(),
  linkGeneration: Count.exactOptional(),
  linkGenerationMax: Count.exactOptional(),
  linkWidth: Count.exactOptional(),
  linkWidthMax: Count.exactOptional(),
});

/**
 * One GPU as the node advertises it. Only `index`, `uuid`, `vendor`, `name`, `links`, `health` and `allocatable` are always
 * there: what the driver does not tell is absent.
 */
export const Gpu = z.object({
  index: Count,
  uuid: GpuUuid,
  vendor: z.literal("nvidia"),
  name: z.string(),
  architecture: z.string().exactOptional(),
  /** `major.minor`, e.g. "9.0". */
  computeCapability: z
    .string()
    .regex(/^\d+\.\d+$/)
    .exactOptional(),
  vramMiB: Count.exactOptional(),
  /** True where the GPU shares the host's memory (GB10, Jetson): `vramMiB` is then absent or the host's. */
  unified: z.boolean().exactOptional(),
  memoryBandwidthGBps: Quantity.exactOptional(),
  multiprocessors: Count.exactOptional(),
  tensorCores: TensorCores.exactOptional(),
  driverVersion: z.string().exactOptional(),
  cudaVersion: z.string().exactOptional(),
  vbiosVersion: z.string().exactOptional(),
  pci: Pci.exactOptional(),
  /** The limit in force; below `powerLimitDefaultWatts` where the owner capped the board. */
  powerLimitWatts: Quantity.exactOptional(),
  powerLimitDefaultWatts: Quantity.exactOptional(),
  /** The highest clock the SMs may run at now; below `smClockMaxMHz` where the owner capped it. */
  smClockLimitMHz: Count.exactOptional(),
  smClockMaxMHz: Count.exactOptional(),
  eccEnabled: z.boolean().exactOptional(),
  persistenceMode: z.boolean().exactOptional(),
  displayActive: z.boolean().exactOptional(),
  computeMode: z.string().exactOptional(),
  mig: z.object({ enabled: z.boolean(), instances: z.array(MigInstance) }).exactOptional(),
  links: z.array(GpuLink),
  health: Health,
  /** Whether a workload may be given this GPU (healthy enough, not held back by its owner), free or not. */
  allocatable: z.boolean(),
  allocatedTo: WorkloadId.exactOptional(),
});
export type Gpu = z.infer<typeof Gpu>;

export const GpuProcess = z.object({
  pid: Count,
  workload: WorkloadId.exactOptional(),
  vramUsedMiB: Count.exactOptional(),
});

export type GpuProcess = z.infer<typeof GpuProcess>;

/** One GPU in a `telemetry` frame. */
export const GpuTelemetry = z.object({
  uuid: GpuUuid,
  utilizationPercent: Percent.exactOptional(),
  memoryUtilizationPercent: Percent.exactOptional(),
  vramUsedMiB: Count.exactOptional(),
  vramTotalMiB: Count.exactOptional(),
  /** Kept by the driver for itself: no workload's and no owner's. */
  vramReservedMiB: Count.exactOptional(),
  /** In use by no process the driver tells of. */
  vramUnattributedMiB: Count.exactOptional(),
  pressure: PressureLevel.exactOptional(),
  powerWatts: Quantity.exactOptional(),
  temperatureCelsius: z.number().exactOptional(),
  memoryTemperatureCelsius: z.number().exactOptional(),
  fanPercent: Percent.exactOptional(),
  smClockMHz: Count.exactOptional(),
  memoryClockMHz: Count.exactOptional(),
  throttleReasons: z.array(z.string()).exactOptional(),
  pcieRxKiBps: Quantity.exactOptional(),
  pcieTxKiBps: Quantity.exactOptional(),
  encoderPercent: Percent.exactOptional(),
  decoderPercent: Percent.exactOptional(),
  eccUncorrected: Count.exactOptional(),
  /** Those of no workload are the owner's. */
  processes: z.array(GpuProcess).exactOptional(),
  /** Where the GPU is split. */
  mig: z
    .array(z.object({ uuid: GpuUuid, vramUsedMiB: Count.exactOptional(), vramTotalMiB: Count.exactOptional() }))
    .exactOptional(),
});
export type GpuTelemetry = z.infer<typeof GpuTelemetry>;
