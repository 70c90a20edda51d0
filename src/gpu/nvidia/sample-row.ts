import type { GpuTelemetry } from "../../protocol/gpu.ts";
import type { Field } from "./fields.ts";
import { leadingFigure } from "./figures.ts";
import { absentValue, saysLost, uuidValue } from "./xml.ts";

/** Bits of `clocks_throttle_reasons.active` (NVML, nvmlClocksEventReasons in nvml.h). */
export const THROTTLE_REASONS: readonly (readonly [number, string])[] = [
  [0x1, "gpu_idle"],
  [0x2, "applications_clocks_setting"],
  [0x4, "sw_power_cap"],
  [0x8, "hw_slowdown"],
  [0x10, "sync_boost"],
  [0x20, "sw_thermal_slowdown"],
  [0x40, "hw_thermal_slowdown"],
  [0x80, "hw_power_brake_slowdown"],
  [0x100, "display_clocks_setting"],
];

/** A row of the stream: a sample, or the place of a GPU that no longer answers. */
export type Row = { kind: "sample"; index: number | undefined; sample: GpuTelemetry } | { kind: "lost" };

/** Reads one line of `--format=csv,noheader,nounits`; undefined where it is none (a message, half a line). */
export function readRow(line: string, fields: readonly Field[]): Row | undefined {
  const cells = line.trim().split(/, /);
  if (cells.length !== fields.length) return undefined;
  if (cells.some(saysLost)) return { kind: "lost" };
  const value = (field: Field): string | undefined => {
    const position = fields.indexOf(field);
    return position < 0 ? undefined : absentValue(cells[position]);
  };
  const uuid = uuidValue(value("uuid"));
  if (uuid === undefined || !uuid.startsWith("GPU-")) return undefined;
  const sample: GpuTelemetry = { uuid };
  const put = (key: NumericKey, number: number | undefined) => {
    if (number !== undefined) sample[key] = number;
  };
  put("utilizationPercent", percent(value("utilization.gpu")));
  put("memoryUtilizationPercent", percent(value("utilization.memory")));
  put("vramUsedMiB", whole(value("memory.used")));
  put("vramTotalMiB", whole(value("memory.total")));
  put("vramReservedMiB", whole(value("memory.reserved")));
  put("powerWatts", decimal(value("power.draw")));
  put("temperatureCelsius", decimal(value("temperature.gpu")));
  put("memoryTemperatureCelsius", decimal(value("temperature.memory")));
  put("fanPercent", percent(value("fan.speed")));
  put("smClockMHz", whole(value("clocks.sm")));
  put("memoryClockMHz", whole(value("clocks.mem")));
  put("encoderPercent", percent(value("utilization.encoder")));
  put("decoderPercent", percent(value("utilization.decoder")));
  put("eccUncorrected", whole(value("ecc.errors.uncorrected.volatile.total")));
  const mask = value("clocks_throttle_reasons.active");
  if (mask !== undefined && /^0x[0-9a-f]+$/i.test(mask)) {
    const bits = Number(mask);
    sample.throttleReasons = THROTTLE_REASONS.filter(([bit]) => (bits & bit) !== 0).map(([, name]) => name);
  }
  return { kind: "sample", index: whole(value("index")), sample };
}

type NumericKey = {
  [K in keyof GpuTelemetry]-?: Exclude<GpuTelemetry[K], undefined> extends number ? K : never;
}[keyof GpuTelemetry];

/** With `nounits` a cell is its number and nothing else. */
function decimal(text: string | undefined): number | undefined {
  return text !== undefined && /^[\d.]+$/.test(text) ? leadingFigure(text) : undefined;
}

function whole(text: string | undefined): number | undefined {
  const number = decimal(text);
  return number === undefined ? undefined : Math.round(number);
}

/** Some drivers round a busy counter to 101. */
function percent(text: string | undefined): number | undefined {
  const number = decimal(text);
  return number === undefined ? undefined : Math.min(100, number);
}
