import type { GpuTelemetry } from "../../protocol/gpu.ts";
import { leadingFigure } from "./figures.ts";
import { THROTTLE_REASONS } from "./sample-row.ts";
import { absentValue, type SmiGpu, saysLost } from "./xml.ts";

/** A MIG instance of a GPU by the ids that the document and `-L` share. */
export interface MigIds {
  uuid: string;
  gpuInstanceId: number;
  computeInstanceId: number;
}

/**
 * The sample a `-q -x` document holds of one GPU: the same figures by the same names as a row of the stream, and the memory of its MIG
 * instances besides. Undefined for a GPU that is lost. Pure.
 */
export function sampleOf(gpu: SmiGpu, uuid: string, instances: readonly MigIds[]): GpuTelemetry | undefined {
  if ([...gpu.values.values()].some(saysLost)) return undefined;
  const first = (...paths: readonly string[]): number | undefined => {
    for (const path of paths) {
      const number = amount(gpu.values.get(path));
      if (number !== undefined) return number;
    }
    return undefined;
  };
  const whole = (...paths: readonly string[]) => rounded(first(...paths));
  const sample: GpuTelemetry = { uuid };
  const put = (key: FigureKey, value: number | undefined, most = Number.POSITIVE_INFINITY) => {
    if (value !== undefined) sample[key] = Math.min(most, value);
  };
  put("utilizationPercent", first("utilization/gpu_util"), 100);
  put("memoryUtilizationPercent", first("utilization/memory_util"), 100);
  put("vramUsedMiB", whole("fb_memory_usage/used", "memory_usage/used"));
  put("vramTotalMiB", whole("fb_memory_usage/total", "memory_usage/total"));
  put("vramReservedMiB", whole("fb_memory_usage/reserved"));
  put(
    "powerWatts",
    first(
      "gpu_power_readings/power_draw",
      "gpu_power_readings/average_power_draw",
      "gpu_power_readings/instant_power_draw",
      "power_readings/power_draw",
    ),
  );
  put("temperatureCelsius", first("temperature/gpu_temp"));
  put("memoryTemperatureCelsius", first("temperature/memory_temp"));
  put("fanPercent", first("fan_speed"), 100);
  put("smClockMHz", whole("clocks/sm_clock"));
  put("memoryClockMHz", whole("clocks/mem_clock"));
  put("encoderPercent", first("utilization/encoder_util"), 100);
  put("decoderPercent", first("utilization/decoder_util"), 100);
  put("eccUncorrected", eccUncorrected(whole));
  const reasons = throttleReasons(gpu.values);
  if (reasons !== undefined) sample.throttleReasons = reasons;
  const mig = migMemory(gpu, instances);
  if (mig.length > 0) sample.mig = mig;
  return sample;
}

/** Adds to samples of the stream, which knows no MIG instances, the memory of those as last read in full. Pure. */
export function withMigMemory(samples: readonly GpuTelemetry[], lastRead: readonly GpuTelemetry[]): GpuTelemetry[] {
  return samples.map((sample) => {
    const mig = sample.mig ?? lastRead.find(({ uuid }) => uuid === sample.uuid)?.mig;
    return mig === undefined ? sample : { ...sample, mig };
  });
}

type FigureKey = {
  [K in keyof GpuTelemetry]-?: Exclude<GpuTelemetry[K], undefined> extends number ? K : never;
}[keyof GpuTelemetry];

/** Volatile, over all memories: one total up to Volta's drivers, the sum of SRAM's and DRAM's in later ones. */
function eccUncorrected(whole: (...paths: readonly string[]) => number | undefined): number | undefined {
  const at = (name: string) => whole(`ecc_errors/volatile/${name}`);
  const total = at("double_bit/total");
  if (total !== undefined) return total;
  const parts = ["sram_uncorrectable", "sram_uncorrectable_parity", "sram_uncorrectable_secded", "dram_uncorrectable"];
  const told = parts.flatMap((name) => at(name) ?? []);
  return told.length === 0 ? undefined : told.reduce((sum, count) => sum + count, 0);
}

/** By the names of the stream, in its order; drivers from 535 on call them events, those before call them throttling. */
function throttleReasons(values: SmiGpu["values"]): string[] | undefined {
  const word = (name: string) =>
    values.get(`clocks_event_reasons/clocks_event_reason_${name}`) ??
    values.get(`clocks_throttle_reasons/clocks_throttle_reason_${name}`);
  const words = THROTTLE_REASONS.map(([, name]) => ({ name, word: word(name) }));
  if (!words.some(({ word }) => word === "Active" || word === "Not Active")) return undefined;
  return words.filter(({ word }) => word === "Active").map(({ name }) => name);
}

function migMemory({ migDevices }: SmiGpu, instances: readonly MigIds[]): NonNullable<GpuTelemetry["mig"]> {
  return migDevices.flatMap((device) => {
    const uuid = migUuid(device, instances);
    if (uuid === undefined) return [];
    const used = rounded(amount(device.get("fb_memory_usage/used")));
    const total = rounded(amount(device.get("fb_memory_usage/total")));
    return [
      { uuid, ...(used !== undefined && { vramUsedMiB: used }), ...(total !== undefined && { vramTotalMiB: total }) },
    ];
  });
}

/** UUID of the instance a part of the document names by its ids. */
export function migUuid(part: ReadonlyMap<string, string>, instances: readonly MigIds[]): string | undefined {
  const gpuInstanceId = amount(part.get("gpu_instance_id"));
  const computeInstanceId = amount(part.get("compute_instance_id"));
  return instances.find(
    (instance) => instance.gpuInstanceId === gpuInstanceId && instance.computeInstanceId === computeInstanceId,
  )?.uuid;
}

function rounded(value: number | undefined): number | undefined {
  return value === undefined ? undefined : Math.round(value);
}

/** "81559 MiB" → 81559; undefined where it is no amount. */
function amount(text: string | undefined): number | undefined {
  return leadingFigure(absentValue(text));
}
