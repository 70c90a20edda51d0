import type { Hold } from "../protocol/agent-frames.ts";
import { bytes, type Family, type Figures, forEachGpu, type GpuStatus, stateSet } from "./figures.ts";
import type { Sample } from "./text.ts";

/** How the board is named everywhere: its index, which may change, and its UUID, which does not. */
const labelsOf = ({ index, uuid }: GpuStatus) => ({ gpu: String(index), uuid });

/** A GPU or MIG instance by its UUID, with the index of its board where that is known. */
function labelsOfUnit({ snapshot }: Figures, uuid: string): Sample["labels"] {
  const board = snapshot.gpus.find(
    (gpu) => gpu.uuid === uuid || gpu.mig?.instances.some((instance) => instance.uuid === uuid),
  );
  return { ...(board !== undefined && { gpu: String(board.index) }), uuid };
}

/** What can be held of this node: a counter that is told before it counts shows its first step too. */
function units({ snapshot }: Figures): string[] {
  return snapshot.gpus.flatMap(({ uuid, mig }) =>
    mig?.enabled === true ? mig.instances.map((instance) => instance.uuid) : [uuid],
  );
}

/** Who holds it: whole, or instance by instance. */
function holders(figures: Figures): Sample[] {
  return figures.snapshot.gpus.flatMap((gpu) =>
    [gpu, ...(gpu.mig?.instances ?? [])].flatMap(({ uuid, allocatedTo }) =>
      allocatedTo === undefined
        ? []
        : [{ labels: { ...labelsOfUnit(figures, uuid), workload: allocatedTo }, value: 1 }],
    ),
  );
}

function isHeld({ uuid, mig }: GpuStatus, { gpus }: Hold): boolean {
  if (gpus === undefined) return true;
  return gpus.includes(uuid) || (mig?.instances.some((instance) => gpus.includes(instance.uuid)) ?? false);
}

/** The GPUs as a lender sees them; what nvidia-smi tells of them stands under the names of the exporters. */
export const GPU_FAMILIES: readonly Family[] = [
  {
    name: "gpunode_gpu_info",
    type: "gauge",
    help: "A GPU of this node; always 1",
    labels: ["gpu", "uuid", "name", "architecture", "compute_capability", "driver_version"],
    samples: ({ snapshot }) =>
      snapshot.gpus.map((gpu) => ({
        labels: {
          ...labelsOf(gpu),
          name: gpu.name,
          ...(gpu.architecture !== undefined && { architecture: gpu.architecture }),
          ...(gpu.computeCapability !== undefined && { compute_capability: gpu.computeCapability }),
          ...(gpu.driverVersion !== undefined && { driver_version: gpu.driverVersion }),
        },
        value: 1,
      })),
  },
  {
    name: "gpunode_gpu_health",
    type: "gauge",
    help: "1 for how the GPU feels, 0 for the others",
    labels: ["gpu", "uuid", "status"],
    samples: ({ snapshot }) =>
      snapshot.gpus.flatMap((gpu) =>
        stateSet(labelsOf(gpu), "status", ["healthy", "degraded", "failed"], gpu.health.status),
      ),
  },
  {
    name: "gpunode_gpu_health_reason",
    type: "gauge",
    help: "Why the GPU is not healthy; 1 while it lasts",
    labels: ["gpu", "uuid", "code"],
    samples: ({ snapshot }) =>
      snapshot.gpus.flatMap((gpu) =>
        gpu.health.reasons.map(({ code }) => ({ labels: { ...labelsOf(gpu), code }, value: 1 })),
      ),
  },
  {
    name: "gpunode_gpu_allocatable",
    type: "gauge",
    help: "Whether new work may be given the GPU, free or not",
    labels: ["gpu", "uuid"],
    samples: (figures) => forEachGpu(figures, labelsOf, ({ allocatable }) => Number(allocatable)),
  },
  {
    name: "gpunode_gpu_holder",
    type: "gauge",
    help: "The workload that holds the GPU or MIG instance; 1 while it does",
    labels: ["gpu", "uuid", "workload"],
    samples: holders,
  },
  {
    name: "gpunode_gpu_hold",
    type: "gauge",
    help: "Somebody keeps the GPU from being lent; 1 while it lasts",
    labels: ["gpu", "uuid", "cause"],
    samples: ({ snapshot }) =>
      snapshot.gpus.flatMap((gpu) =>
        snapshot.holds
          .filter((hold) => isHeld(gpu, hold))
          .map(({ cause }) => ({ labels: { ...labelsOf(gpu), cause }, value: 1 })),
      ),
  },
  {
    name: "gpunode_gpu_vram_unattributed_bytes",
    type: "gauge",
    help: "Memory of the GPU in use by no process the driver tells of",
    labels: ["gpu", "uuid"],
    samples: (figures) => forEachGpu(figures, labelsOf, ({ telemetry }) => bytes(telemetry?.vramUnattributedMiB)),
  },
  {
    name: "gpunode_gpu_seconds_total",
    type: "counter",
    help: "Seconds a workload held the GPU or MIG instance, from the usage records written since gpunode started: one a minute and one at a workload's end",
    labels: ["gpu", "uuid"],
    samples: (figures) =>
      [...new Set([...units(figures), ...figures.tally.gpuSeconds.keys()])].map((uuid) => ({
        labels: labelsOfUnit(figures, uuid),
        value: figures.tally.gpuSeconds.get(uuid) ?? 0,
      })),
  },
  {
    name: "gpunode_energy_joules_total",
    type: "counter",
    help: "Energy of GPUs while workloads held them, from the usage records written since gpunode started",
    labels: [],
    samples: ({ tally }) => [{ labels: {}, value: tally.energyJoules }],
  },
];
