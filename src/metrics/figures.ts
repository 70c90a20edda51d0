import type { GpuDetails } from "../gpu/nvidia/details.ts";
import type { RunFigures } from "../gpu/nvidia/run-tally.ts";
import { THROTTLE_REASONS } from "../gpu/nvidia/sample-row.ts";
import type { XidCount } from "../gpu/nvidia/xid-tally.ts";
import type { LinkCounts } from "../link/needs.ts";
import type { Snapshot } from "../local/snapshot.ts";
import type { GpuTelemetry } from "../protocol/gpu.ts";
import type { PressureLevel } from "../protocol/gpu-health.ts";
import type { TallyFigures } from "./tally.ts";
import type { Description, Sample } from "./text.ts";

/** All that is told of the node at one moment; what is absent is not known. */
export interface Figures {
  /** As the owner's socket tells it. */
  snapshot: Snapshot;
  /** By UUID; only of GPUs whose last read says how they are now. */
  gpus: ReadonlyMap<string, GpuDetails>;
  /** Absent where the kernel's log cannot be read. */
  xids?: readonly XidCount[];
  nvidiaSmi: RunFigures;
  /** Counted since the daemon's start. */
  tally: TallyFigures;
  /** Absent where no coordinator is configured. */
  link?: LinkCounts;
  /** Of the machine's memory and of the disk where images lie. */
  pressure: { host_memory: PressureLevel; disk: PressureLevel };
  state: { isWritable: boolean; bytes?: number };
  /** When the newest sample was taken, milliseconds since the epoch. */
  sampledAtMs?: number;
  process: ProcessFigures;
}

/** The daemon's own process. */
export interface ProcessFigures {
  cpuSeconds: number;
  /** Seconds since the epoch. */
  startTimeSeconds: number;
  residentBytes: number;
  heapUsedBytes: number;
  heapTotalBytes: number;
  eventLoopLagSeconds: number;
  openFds?: number;
  maxFds?: number;
}

/** A family, and what there is to tell of it. */
export interface Family extends Description {
  samples(figures: Figures): Sample[];
}

export type GpuStatus = Snapshot["gpus"][number];

/** What a sample tells under the name of a property, in its unit. */
const LIVE: Readonly<Record<string, (sample: GpuTelemetry) => number | undefined>> = {
  "utilization.gpu": (sample) => sample.utilizationPercent,
  "utilization.memory": (sample) => sample.memoryUtilizationPercent,
  "utilization.encoder": (sample) => sample.encoderPercent,
  "utilization.decoder": (sample) => sample.decoderPercent,
  "memory.total": (sample) => sample.vramTotalMiB,
  "memory.reserved": (sample) => sample.vramReservedMiB,
  "memory.used": (sample) => sample.vramUsedMiB,
  "temperature.gpu": (sample) => sample.temperatureCelsius,
  "temperature.memory": (sample) => sample.memoryTemperatureCelsius,
  "fan.speed": (sample) => sample.fanPercent,
  "power.draw": (sample) => sample.powerWatts,
  "clocks.current.sm": (sample) => sample.smClockMHz,
  "clocks.current.memory": (sample) => sample.memoryClockMHz,
  "ecc.errors.uncorrected.volatile.total": (sample) => sample.eccUncorrected,
};

const REASON = "clocks_event_reasons.";

/**
 * A property of a GPU as it is now, in nvidia-smi's unit: from the newest sample where that has it, else from the last full read.
 * undefined where neither does.
 */
export function reading(figures: Figures, gpu: GpuStatus, property: string): number | undefined {
  const { telemetry } = gpu;
  const known = figures.gpus.get(gpu.uuid)?.properties;
  if (telemetry === undefined) return known?.get(property);
  if (property === "memory.free") return free(telemetry, known);
  const reasons = telemetry.throttleReasons;
  if (property.startsWith(REASON) && reasons !== undefined) {
    const name = property.slice(REASON.length);
    return name === "active" ? maskOf(reasons) : Number(reasons.includes(name));
  }
  const live = Object.hasOwn(LIVE, property) ? LIVE[property]?.(telemetry) : undefined;
  return live ?? known?.get(property);
}

/** The bits of throttle reasons, as NVML has them. */
function maskOf(reasons: readonly string[]): number {
  return THROTTLE_REASONS.reduce((mask, [bit, name]) => (reasons.includes(name) ? mask | bit : mask), 0);
}

/** nvidia-smi rounds each part by itself: its own figure counts while it is of the same moment. */
function free(
  { vramTotalMiB, vramUsedMiB, vramReservedMiB = 0 }: GpuTelemetry,
  known: ReadonlyMap<string, number> | undefined,
): number | undefined {
  if (vramTotalMiB === undefined || vramUsedMiB === undefined) return known?.get("memory.free");
  if (known?.get("memory.used") === vramUsedMiB && known.has("memory.free")) return known.get("memory.free");
  return Math.max(0, vramTotalMiB - vramUsedMiB - vramReservedMiB);
}

/** Labels that stand at many series of a GPU: made once for each scrape. */
export function labelsOncePerGpu(
  make: (gpu: GpuStatus, figures: Figures) => Sample["labels"],
): (gpu: GpuStatus, figures: Figures) => Sample["labels"] {
  const made = new WeakMap<Figures, Map<GpuStatus, Sample["labels"]>>();
  return (gpu, figures) => {
    const ofThese = made.get(figures) ?? new Map<GpuStatus, Sample["labels"]>();
    made.set(figures, ofThese);
    const labels = ofThese.get(gpu) ?? make(gpu, figures);
    ofThese.set(gpu, labels);
    return labels;
  };
}

/** One sample for each GPU of which `value` knows something. */
export function forEachGpu(
  figures: Figures,
  labels: (gpu: GpuStatus, figures: Figures) => Sample["labels"],
  value: (gpu: GpuStatus) => number | undefined,
): Sample[] {
  const samples: Sample[] = [];
  for (const gpu of figures.snapshot.gpus) {
    const told = value(gpu);
    if (told !== undefined) samples.push({ labels: labels(gpu, figures), value: told });
  }
  return samples;
}

/** One sample without labels; none where the value is not known. */
export function alone(value: number | undefined): Sample[] {
  return value === undefined ? [] : [{ labels: {}, value }];
}

/** One series for each of the states, 1 for the one it is in: a state that changes is seen in both. */
export function stateSet(
  labels: Sample["labels"],
  label: string,
  states: readonly string[],
  current: string,
): Sample[] {
  return states.map((state) => ({ labels: { ...labels, [label]: state }, value: Number(state === current) }));
}

export const MIB = 1024 * 1024;

/** MiB in bytes. */
export function bytes(mebibytes: number | undefined): number | undefined {
  return mebibytes === undefined ? undefined : mebibytes * MIB;
}

/** Percent as a share of one. */
export function ratio(percent: number | undefined): number | undefined {
  return percent === undefined ? undefined : percent / 100;
}

/** RFC 3339 as seconds since the epoch. */
export function seconds(instant: string | undefined): number | undefined {
  return instant === undefined ? undefined : Date.parse(instant) / 1000;
}
