import { type Family, type Figures, forEachGpu, type GpuStatus, labelsOncePerGpu, reading } from "./figures.ts";
import type { Description, Sample } from "./text.ts";

/**
 * Fields of NVIDIA's DCGM as dcgm-exporter (github.com/NVIDIA/dcgm-exporter) tells and labels them, as far as nvidia-smi knows them. Types are
 * those of its `default-counters.csv`; the profiling fields (`DCGM_FI_PROF_*`), energy and NVLink's are not to be had from nvidia-smi.
 */

const LABELS = [
  "gpu",
  "UUID",
  "pci_bus_id",
  "device",
  "modelName",
  "GPU_I_PROFILE",
  "GPU_I_ID",
  "Hostname",
  "DCGM_FI_DRIVER_VERSION",
];

interface Instance {
  profile: string;
  gpuInstanceId: number;
}

const labelsOfGpu = labelsOncePerGpu((gpu, figures) => labelsOf(figures, gpu));

function labelsOf(figures: Figures, gpu: GpuStatus, instance?: Instance): Sample["labels"] {
  const minor = figures.gpus.get(gpu.uuid)?.minorNumber ?? gpu.index;
  const { hostname } = figures.snapshot.host.info;
  return {
    gpu: String(gpu.index),
    UUID: gpu.uuid,
    ...(gpu.pci !== undefined && { pci_bus_id: gpu.pci.busId }),
    device: `nvidia${minor}`,
    modelName: gpu.name,
    ...(instance !== undefined && { GPU_I_PROFILE: instance.profile, GPU_I_ID: String(instance.gpuInstanceId) }),
    ...(hostname !== undefined && { Hostname: hostname }),
    ...(gpu.driverVersion !== undefined && { DCGM_FI_DRIVER_VERSION: gpu.driverVersion }),
  };
}

/** A field that is one of nvidia-smi's properties, in the same unit. */
function field(name: string, type: Description["type"], help: string, property: string): Family {
  return {
    name: `DCGM_FI_DEV_${name}`,
    type,
    help,
    labels: LABELS,
    samples: (figures) => forEachGpu(figures, labelsOfGpu, (gpu) => reading(figures, gpu, property)),
  };
}

/**
 * Memory: of a GPU that is split, of each of its instances instead of the whole, as dcgm-exporter does, so that a sum over all series is
 * the machine's.
 */
function framebuffer(kind: "FREE" | "USED" | "TOTAL", property: string, help: string): Family {
  return {
    name: `DCGM_FI_DEV_FB_${kind}`,
    type: "gauge",
    help,
    labels: LABELS,
    samples: (figures) =>
      figures.snapshot.gpus.flatMap((gpu) => {
        const instances = gpu.mig?.instances ?? [];
        if (instances.length === 0) {
          const value = reading(figures, gpu, property);
          return value === undefined ? [] : [{ labels: labelsOfGpu(gpu, figures), value }];
        }
        return instances.flatMap((instance) => {
          const now = gpu.telemetry?.mig?.find(({ uuid }) => uuid === instance.uuid);
          const [used, total] = [now?.vramUsedMiB, now?.vramTotalMiB];
          const left = used === undefined || total === undefined ? undefined : Math.max(0, total - used);
          const value = { FREE: left, USED: used, TOTAL: total }[kind];
          return value === undefined ? [] : [{ labels: labelsOf(figures, gpu, instance), value }];
        });
      }),
  };
}

export const DCGM_FAMILIES: readonly Family[] = [
  field("SM_CLOCK", "gauge", "SM clock frequency (in MHz).", "clocks.current.sm"),
  field("MEM_CLOCK", "gauge", "Memory clock frequency (in MHz).", "clocks.current.memory"),
  field("MEMORY_TEMP", "gauge", "Memory temperature (in C).", "temperature.memory"),
  field("GPU_TEMP", "gauge", "GPU temperature (in C).", "temperature.gpu"),
  field("POWER_USAGE", "gauge", "Power draw (in W).", "power.draw"),
  field("POWER_MGMT_LIMIT", "gauge", "Power limit that was set (in W).", "power.limit"),
  field("ENFORCED_POWER_LIMIT", "gauge", "Power limit in force (in W).", "enforced.power.limit"),
  field("FAN_SPEED", "gauge", "Fan speed (in %).", "fan.speed"),
  field("PCIE_REPLAY_COUNTER", "counter", "Total number of PCIe retries.", "pcie.replay_counter"),
  field("GPU_UTIL", "gauge", "GPU utilization (in %).", "utilization.gpu"),
  field("MEM_COPY_UTIL", "gauge", "Memory utilization (in %).", "utilization.memory"),
  field("ENC_UTIL", "gauge", "Encoder utilization (in %).", "utilization.encoder"),
  field("DEC_UTIL", "gauge", "Decoder utilization (in %).", "utilization.decoder"),
  field("CLOCK_THROTTLE_REASONS", "gauge", "Bits of what holds the clocks back.", "clocks_event_reasons.active"),
  {
    name: "DCGM_FI_DEV_XID_ERRORS",
    type: "gauge",
    help: "Value of the last XID error encountered; 0 where there was none since gpunode started.",
    labels: LABELS,
    samples: (figures) =>
      forEachGpu(figures, labelsOfGpu, ({ uuid }) => {
        const own = figures.xids?.filter((told) => told.gpu === uuid);
        return own && (own.sort((a, b) => b.lastAtMs - a.lastAtMs)[0]?.xid ?? 0);
      }),
  },
  framebuffer("FREE", "memory.free", "Framebuffer memory free (in MiB)."),
  framebuffer("USED", "memory.used", "Framebuffer memory used (in MiB)."),
  framebuffer("TOTAL", "memory.total", "Total framebuffer memory (in MiB)."),
  field("FB_RESERVED", "gauge", "Framebuffer memory reserved (in MiB).", "memory.reserved"),
  field(
    "ECC_SBE_VOL_TOTAL",
    "counter",
    "Total number of single-bit volatile ECC errors.",
    "ecc.errors.corrected.volatile.total",
  ),
  field(
    "ECC_DBE_VOL_TOTAL",
    "counter",
    "Total number of double-bit volatile ECC errors.",
    "ecc.errors.uncorrected.volatile.total",
  ),
  field(
    "ECC_SBE_AGG_TOTAL",
    "counter",
    "Total number of single-bit persistent ECC errors.",
    "ecc.errors.corrected.aggregate.total",
  ),
  field(
    "ECC_DBE_AGG_TOTAL",
    "counter",
    "Total number of double-bit persistent ECC errors.",
    "ecc.errors.uncorrected.aggregate.total",
  ),
  field(
    "RETIRED_SBE",
    "counter",
    "Total number of retired pages due to single-bit errors.",
    "retired_pages.single_bit_ecc.count",
  ),
  field(
    "RETIRED_DBE",
    "counter",
    "Total number of retired pages due to double-bit errors.",
    "retired_pages.double_bit.count",
  ),
  field("RETIRED_PENDING", "counter", "Whether pages are pending retirement.", "retired_pages.pending"),
  field(
    "UNCORRECTABLE_REMAPPED_ROWS",
    "counter",
    "Number of remapped rows for uncorrectable errors",
    "remapped_rows.uncorrectable",
  ),
  field(
    "CORRECTABLE_REMAPPED_ROWS",
    "counter",
    "Number of remapped rows for correctable errors",
    "remapped_rows.correctable",
  ),
  field("ROW_REMAP_FAILURE", "gauge", "Whether remapping of rows has failed", "remapped_rows.failure"),
  field("ROW_REMAP_PENDING", "gauge", "Whether remapping of rows is pending", "remapped_rows.pending"),
];
