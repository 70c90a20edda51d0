import { PROPERTIES, type Property } from "../gpu/nvidia/properties.ts";
import {
  alone,
  bytes,
  type Family,
  type Figures,
  forEachGpu,
  type GpuStatus,
  labelsOncePerGpu,
  reading,
} from "./figures.ts";
import type { Sample } from "./text.ts";

/**
 * The families of nvidia_gpu_exporter (github.com/utkuozdemir/nvidia_gpu_exporter), by its rules: the name of the query's property with
 * its unit, values in base units, GPUs by their UUID in lower case and without "GPU-". Held by a test against that exporter's own recorded
 * output.
 */

/** How a unit is named, and what one of it is in the base unit. */
const UNITS: Readonly<Record<NonNullable<Property["unit"]>, { suffix: string; base: (value: number) => number }>> = {
  "%": { suffix: "_ratio", base: (value) => value / 100 },
  MiB: { suffix: "_bytes", base: (value) => value * 1024 * 1024 },
  MHz: { suffix: "_clock_hz", base: (value) => value * 1e6 },
  W: { suffix: "_watts", base: (value) => value },
  us: { suffix: "_seconds", base: (value) => value / 1e6 },
  "KB/s": { suffix: "_bytes_per_second", base: (value) => value * 1000 },
};

/** Of the document alone: the exporter, which asks by query, has no name for it. */
const UNNAMED: ReadonlySet<string> = new Set(["pcie.replay_counter"]);

/** Processes told of each GPU; a GPU with more of them than this is a fault, or somebody's mischief. */
const PROCESSES_MOST = 64;

const uuid = (of: string) => of.replace(/^(GPU|MIG)-/i, "").toLowerCase();
const labelsOf = (gpu: GpuStatus) => ({ uuid: uuid(gpu.uuid) });
const labelsOfGpu = labelsOncePerGpu(labelsOf);

function ofProperty({ name, unit }: Property): Family {
  const { suffix, base } = unit === undefined ? { suffix: "", base: (value: number) => value } : UNITS[unit];
  const words = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`).replaceAll(".", "_");
  return {
    name: `nvidia_smi_${words}${suffix}`,
    type: "gauge",
    help: unit === undefined ? name : `${name} [${unit}]`,
    labels: ["uuid"],
    samples: (figures) =>
      forEachGpu(figures, labelsOfGpu, (gpu) => {
        const value = reading(figures, gpu, name);
        return value === undefined ? undefined : base(value);
      }),
  };
}

/** A number of a GPU that is no property of a full read. */
function ofGpu(name: string, help: string, value: (gpu: GpuStatus, figures: Figures) => number | undefined): Family {
  return {
    name: `nvidia_smi_${name}`,
    type: "gauge",
    help,
    labels: ["uuid"],
    samples: (figures) => forEachGpu(figures, labelsOfGpu, (gpu) => value(gpu, figures)),
  };
}

function computing(figures: Figures, gpu: GpuStatus) {
  const details = figures.gpus.get(gpu.uuid);
  return details?.processes.filter(({ type }) => type === "C" || type === "C+G");
}

function ofProcess(name: string, help: string, value: (vramUsedMiB: number | undefined) => number | undefined): Family {
  return {
    name: `nvidia_smi_${name}`,
    type: "gauge",
    help,
    labels: ["uuid", "pid", "process_name"],
    samples: (figures) =>
      figures.snapshot.gpus.flatMap((gpu) =>
        (computing(figures, gpu) ?? []).slice(0, PROCESSES_MOST).flatMap(({ pid, name: program, vramUsedMiB }) => {
          const told = value(vramUsedMiB);
          const labels = { ...labelsOf(gpu), pid: String(pid), process_name: program };
          return told === undefined ? [] : [{ labels, value: told }];
        }),
      ),
  };
}

function infoOf(figures: Figures, gpu: GpuStatus): Sample["labels"] {
  const details = figures.gpus.get(gpu.uuid);
  // As `--query-gpu` prints it where there is none.
  const or = (text: string | undefined) => text ?? "[N/A]";
  const subSystem = details?.pciSubSystemId;
  return {
    ...labelsOf(gpu),
    name: gpu.name,
    driver_model_current: or(details?.driverModel.current),
    driver_model_pending: or(details?.driverModel.pending),
    vbios_version: or(gpu.vbiosVersion),
    driver_version: or(gpu.driverVersion),
    pci_bus_id: or(gpu.pci?.busId),
    serial: or(details?.serial),
    compute_cap: or(gpu.computeCapability),
    pci_sub_device_id: or(subSystem === undefined ? undefined : `0x${subSystem.replace(/^0x/i, "")}`),
    index: String(gpu.index),
    cuda_version: gpu.cudaVersion ?? "",
  };
}

/** The memory of an instance is that of its GPU instance, which all its compute instances share: told once. */
function ofMigMemory(kind: "total" | "used" | "free"): Family {
  return {
    name: `nvidia_smi_mig_memory_${kind}_bytes`,
    type: "gauge",
    help: `Memory of the GPU instance (${kind}), which its compute instances share`,
    labels: ["uuid", "gpu_instance_id"],
    samples: (figures) =>
      figures.snapshot.gpus.flatMap((gpu) =>
        (gpu.mig?.instances ?? []).flatMap(({ uuid: instance, gpuInstanceId }) => {
          const now = gpu.telemetry?.mig?.find((told) => told.uuid === instance);
          const [used, total] = [now?.vramUsedMiB, now?.vramTotalMiB];
          const left = used === undefined || total === undefined ? undefined : Math.max(0, total - used);
          const value = bytes({ total, used, free: left }[kind]);
          const labels = { ...labelsOf(gpu), gpu_instance_id: String(gpuInstanceId) };
          return value === undefined ? [] : [{ labels, value }];
        }),
      ),
  };
}

export const NVIDIA_SMI_FAMILIES: readonly Family[] = [
  {
    name: "nvidia_smi_gpu_info",
    type: "gauge",
    help: "Who the GPU is; always 1",
    labels: [
      "uuid",
      "name",
      "driver_model_current",
      "driver_model_pending",
      "vbios_version",
      "driver_version",
      "pci_bus_id",
      "serial",
      "compute_cap",
      "pci_sub_device_id",
      "index",
      "cuda_version",
    ],
    samples: (figures) => figures.snapshot.gpus.map((gpu) => ({ labels: infoOf(figures, gpu), value: 1 })),
  },
  ofGpu("index", "index", ({ index }) => index),
  ofGpu("count", "count", (_gpu, { snapshot }) => snapshot.gpus.length),
  ofGpu("compute_cap", "compute_cap", ({ computeCapability }) =>
    computeCapability === undefined ? undefined : Number(computeCapability),
  ),
  ...PROPERTIES.filter(({ name }) => !UNNAMED.has(name)).map(ofProperty),
  ofGpu(
    "compute_apps",
    "Number of processes with a compute context on the GPU",
    (gpu, figures) => computing(figures, gpu)?.length,
  ),
  ofProcess("compute_app_info", "A process with a compute context on the GPU; always 1", () => 1),
  ofProcess(
    "compute_app_used_memory_bytes",
    "GPU memory used by the process; absent where the driver does not tell it",
    bytes,
  ),
  {
    name: "nvidia_smi_mig_info",
    type: "gauge",
    help: "A MIG instance: the UUID of its GPU and its own, its ids and its profile; always 1",
    labels: ["uuid", "mig_uuid", "gpu_instance_id", "compute_instance_id", "profile"],
    samples: ({ snapshot }) =>
      snapshot.gpus.flatMap((gpu) =>
        (gpu.mig?.instances ?? []).map(({ uuid: instance, profile, gpuInstanceId, computeInstanceId }) => ({
          labels: {
            ...labelsOf(gpu),
            mig_uuid: uuid(instance),
            gpu_instance_id: String(gpuInstanceId),
            compute_instance_id: String(computeInstanceId),
            profile,
          },
          value: 1,
        })),
      ),
  },
  ofMigMemory("total"),
  ofMigMemory("used"),
  ofMigMemory("free"),
  {
    name: "nvidia_smi_xid_errors_total",
    type: "counter",
    help: "Xids of the GPU in the kernel's log since gpunode started; a kind is told from its first one on",
    labels: ["uuid", "xid"],
    samples: ({ xids = [] }) =>
      xids.map(({ gpu, xid, count }) => ({ labels: { uuid: uuid(gpu), xid: String(xid) }, value: count })),
  },
  {
    name: "nvidia_smi_xid_last_timestamp_seconds",
    type: "gauge",
    help: "When the last Xid of this kind was logged, seconds since the epoch",
    labels: ["uuid", "xid"],
    samples: ({ xids = [] }) =>
      xids.map(({ gpu, xid, lastAtMs }) => ({ labels: { uuid: uuid(gpu), xid: String(xid) }, value: lastAtMs / 1000 })),
  },
  {
    name: "nvidia_smi_command_exit_code",
    type: "gauge",
    help: "Exit code of the most recent nvidia-smi run; -1 where it could not be started or was killed",
    labels: [],
    samples: ({ nvidiaSmi }) => alone(nvidiaSmi.exitCode),
  },
  {
    name: "nvidia_smi_failed_scrapes_total",
    type: "counter",
    help: "Full reads of the GPUs that failed since gpunode started",
    labels: [],
    samples: ({ nvidiaSmi }) => alone(nvidiaSmi.failedReads),
  },
  {
    name: "nvidia_smi_last_collect_success",
    type: "gauge",
    help: "Whether the most recent full read succeeded (1) or not (0)",
    labels: [],
    samples: ({ nvidiaSmi: { lastRead } }) => alone(lastRead && Number(lastRead.isOk)),
  },
  {
    name: "nvidia_smi_last_collect_success_timestamp_seconds",
    type: "gauge",
    help: "When the most recent full read that succeeded was over, seconds since the epoch",
    labels: [],
    samples: ({ nvidiaSmi: { lastOkAt } }) => alone(lastOkAt && lastOkAt / 1000),
  },
  {
    name: "nvidia_smi_last_collect_duration_seconds",
    type: "gauge",
    help: "How long nvidia-smi took for the most recent full read",
    labels: [],
    samples: ({ nvidiaSmi: { lastRead } }) => alone(lastRead && lastRead.durationMs / 1000),
  },
  {
    name: "nvidia_smi_compute_apps_last_collect_success",
    type: "gauge",
    help: "Whether the most recent full read, which tells the processes too, succeeded (1) or not (0)",
    labels: [],
    samples: ({ nvidiaSmi: { lastRead } }) => alone(lastRead && Number(lastRead.isOk)),
  },
];
