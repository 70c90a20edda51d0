import { leadingFigure } from "./figures.ts";
import { THROTTLE_REASONS } from "./sample-row.ts";
import { absentValue } from "./xml.ts";

/** In what nvidia-smi tells a property; none where it is a count, a level or a state. */
export type PropertyUnit = "%" | "MiB" | "MHz" | "W" | "us" | "KB/s";

/** One value of a GPU that is a number, or a state that has one. */
export interface Property {
  /** As `--query-gpu` calls it, whatever driver is there; those of `pcie.throughput` are the document's alone. */
  name: string;
  unit?: PropertyUnit;
  /** From the values of a `-q -x` document, by their path; undefined where the driver does not tell. */
  read(values: Values): number | undefined;
}

type Values = ReadonlyMap<string, string>;

/** Two-state words. */
const SWITCH: Readonly<Record<string, number>> = {
  Enabled: 1,
  Disabled: 0,
  Yes: 1,
  No: 0,
  Active: 1,
  "Not Active": 0,
};

/** `nvmlComputeMode_t`. */
const COMPUTE_MODE: Readonly<Record<string, number>> = {
  Default: 0,
  Exclusive_Thread: 1,
  Prohibited: 2,
  Exclusive_Process: 3,
};

/** `nvmlDeviceGpuRecoveryAction_t`. */
const RECOVERY_ACTION: Readonly<Record<string, number>> = {
  None: 0,
  Reset: 1,
  "GPU Reset": 1,
  Reboot: 2,
  "Node Reboot": 2,
  "Drain P2P": 3,
  "Drain and Reset": 4,
};

/** `nvmlGpuFabricState_t`. */
const FABRIC_STATE: Readonly<Record<string, number>> = {
  "Not Supported": 0,
  "Not Started": 1,
  "In Progress": 2,
  Completed: 3,
};

/** The first of the paths that holds a number. */
function figure(...paths: readonly string[]) {
  return (values: Values): number | undefined => {
    for (const path of paths) {
      const number = leadingFigure(absentValue(values.get(path)));
      if (number !== undefined) return number;
    }
    return undefined;
  };
}

/**
 * The same, and else what bears the last name of `path` one level further down: driver 610 has put the power limits into a group of their
 * own.
 */
function figureOrDeeper(...paths: readonly [string, ...string[]]) {
  const plain = figure(...paths);
  const [parent = "", leaf = ""] = paths[0].split("/");
  const deeper = new RegExp(`^${parent}/[^/]+/${leaf}$`);
  return (values: Values): number | undefined => {
    const number = plain(values);
    if (number !== undefined) return number;
    const path = [...values.keys()].find((key) => deeper.test(key));
    return path === undefined ? undefined : figure(path)(values);
  };
}

/** Degrees that may lie below zero: how far it is from its limit. */
function degrees(path: string) {
  return (values: Values): number | undefined => {
    const text = values.get(path)?.trim() ?? "";
    const number = leadingFigure(absentValue(text.replace(/^-/, "")));
    return number !== undefined && text.startsWith("-") ? -number : number;
  };
}

/** The first of the paths that holds a word of the table, however it is capitalized. */
function word(table: Readonly<Record<string, number>>, ...paths: readonly string[]) {
  const numbers = new Map(Object.entries(table).map(([text, number]) => [text.toLowerCase(), number]));
  return (values: Values): number | undefined => {
    for (const path of paths) {
      const number = numbers.get(values.get(path)?.toLowerCase() ?? "");
      if (number !== undefined) return number;
    }
    return undefined;
  };
}

/** The sum of those of the paths that hold a number. */
function sum(...paths: readonly string[]) {
  return (values: Values): number | undefined => {
    const told = paths.flatMap((path) => figure(path)(values) ?? []);
    return told.length === 0 ? undefined : told.reduce((total, count) => total + count, 0);
  };
}

/** `P0` to `P15`. */
function performanceState(values: Values): number | undefined {
  const state = /^P(\d{1,2})$/.exec(values.get("performance_state") ?? "")?.[1];
  return state === undefined ? undefined : Number(state);
}

/** By either name: drivers from 535 on call them events, those before call them throttling. */
function reason(name: string) {
  return word(
    SWITCH,
    `clocks_event_reasons/clocks_event_reason_${name}`,
    `clocks_throttle_reasons/clocks_throttle_reason_${name}`,
  );
}

/** The bits of all reasons that hold, as NVML has them. */
function activeReasons(values: Values): number | undefined {
  const told = THROTTLE_REASONS.map(([bit, name]) => ({ bit, holds: reason(name)(values) }));
  if (told.every(({ holds }) => holds === undefined)) return undefined;
  return told.reduce((mask, { bit, holds }) => (holds === 1 ? mask | bit : mask), 0);
}

/** Reasons with a property of their own; the last bit, `display_clocks_setting`, has none in any driver. */
const REASONS = THROTTLE_REASONS.map(([, name]) => name).filter((name) => name !== "display_clocks_setting");

/** Counter in the document by the reason's name in the query. */
const REASON_COUNTERS: readonly (readonly [string, string])[] = [
  ["sw_power_cap", "sw_power_cap"],
  ["sync_boost", "sync_boost"],
  ["sw_thermal_slowdown", "sw_therm_slowdown"],
  ["hw_thermal_slowdown", "hw_therm_slowdown"],
  ["hw_power_brake_slowdown", "hw_power_brake"],
];

/** Where SRAM errors were found, in the document by the name in the query. */
const SRAM_SOURCES: readonly (readonly [string, string])[] = [
  ["l2", "l2"],
  ["sm", "sm"],
  ["mcu", "microcontroller"],
  ["pcie", "pcie"],
  ["other", "other"],
];

const [MEMORY, LINK, POWER, OLD_POWER] = [
  "fb_memory_usage",
  "pci/pci_gpu_link_info",
  "gpu_power_readings",
  "power_readings",
];

/** ECC counters of one kind and period; SRAM's and DRAM's since Ampere, one sum over all memories before. */
function ecc(kind: "corrected" | "uncorrected", period: "volatile" | "aggregate"): Property[] {
  const at = `ecc_errors/${period}`;
  const name = `ecc.errors.${kind}.${period}`;
  const word = kind === "corrected" ? "correctable" : "uncorrectable";
  // Drivers tell uncorrectable errors of SRAM as one number, newer ones as two.
  const sram = [`${at}/sram_${word}`, `${at}/sram_${word}_parity`, `${at}/sram_${word}_secded`];
  const dram = `${at}/dram_${word}`;
  const before = figure(`${at}/${kind === "corrected" ? "single" : "double"}_bit/total`);
  return [
    { name: `${name}.dram`, read: figure(dram) },
    { name: `${name}.sram`, read: sum(...sram) },
    { name: `${name}.total`, read: (values) => before(values) ?? sum(...sram, dram)(values) },
  ];
}

/**
 * What a full read tells of a GPU in numbers, beside its identity. Paths over the documents of drivers 340 to 610; numbers of states as in
 * `nvml.h`.
 */
export const PROPERTIES: readonly Property[] = [
  { name: "pstate", read: performanceState },
  { name: "utilization.gpu", unit: "%", read: figure("utilization/gpu_util") },
  { name: "utilization.memory", unit: "%", read: figure("utilization/memory_util") },
  { name: "utilization.encoder", unit: "%", read: figure("utilization/encoder_util") },
  { name: "utilization.decoder", unit: "%", read: figure("utilization/decoder_util") },
  { name: "utilization.jpeg", unit: "%", read: figure("utilization/jpeg_util") },
  { name: "utilization.ofa", unit: "%", read: figure("utilization/ofa_util") },
  { name: "encoder.stats.sessionCount", read: figure("encoder_stats/session_count") },
  { name: "encoder.stats.averageFps", read: figure("encoder_stats/average_fps") },
  { name: "encoder.stats.averageLatency", read: figure("encoder_stats/average_latency") },
  { name: "memory.total", unit: "MiB", read: figure(`${MEMORY}/total`, "memory_usage/total") },
  { name: "memory.reserved", unit: "MiB", read: figure(`${MEMORY}/reserved`) },
  { name: "memory.used", unit: "MiB", read: figure(`${MEMORY}/used`, "memory_usage/used") },
  { name: "memory.free", unit: "MiB", read: figure(`${MEMORY}/free`, "memory_usage/free") },
  { name: "temperature.gpu", read: figure("temperature/gpu_temp") },
  { name: "temperature.gpu.tlimit", read: degrees("temperature/gpu_temp_tlimit") },
  { name: "temperature.memory", read: figure("temperature/memory_temp") },
  { name: "fan.speed", unit: "%", read: figure("fan_speed") },
  {
    name: "power.draw",
    unit: "W",
    read: figure(
      `${POWER}/power_draw`,
      `${POWER}/average_power_draw`,
      `${POWER}/instant_power_draw`,
      `${OLD_POWER}/power_draw`,
    ),
  },
  { name: "power.draw.average", unit: "W", read: figure(`${POWER}/average_power_draw`) },
  { name: "power.draw.instant", unit: "W", read: figure(`${POWER}/instant_power_draw`) },
  {
    name: "power.limit",
    unit: "W",
    read: figureOrDeeper(`${POWER}/requested_power_limit`, `${OLD_POWER}/power_limit`),
  },
  {
    name: "enforced.power.limit",
    unit: "W",
    read: figureOrDeeper(`${POWER}/current_power_limit`, `${POWER}/power_limit`, `${OLD_POWER}/enforced_power_limit`),
  },
  {
    name: "power.default_limit",
    unit: "W",
    read: figureOrDeeper(`${POWER}/default_power_limit`, `${OLD_POWER}/default_power_limit`),
  },
  { name: "power.min_limit", unit: "W", read: figure(`${POWER}/min_power_limit`, `${OLD_POWER}/min_power_limit`) },
  { name: "power.max_limit", unit: "W", read: figure(`${POWER}/max_power_limit`, `${OLD_POWER}/max_power_limit`) },
  { name: "clocks.current.graphics", unit: "MHz", read: figure("clocks/graphics_clock") },
  { name: "clocks.current.sm", unit: "MHz", read: figure("clocks/sm_clock") },
  { name: "clocks.current.memory", unit: "MHz", read: figure("clocks/mem_clock") },
  { name: "clocks.current.video", unit: "MHz", read: figure("clocks/video_clock") },
  { name: "clocks.max.graphics", unit: "MHz", read: figure("max_clocks/graphics_clock") },
  { name: "clocks.max.sm", unit: "MHz", read: figure("max_clocks/sm_clock") },
  { name: "clocks.max.memory", unit: "MHz", read: figure("max_clocks/mem_clock") },
  { name: "clocks_event_reasons.active", read: activeReasons },
  ...REASONS.map((name): Property => ({ name: `clocks_event_reasons.${name}`, read: reason(name) })),
  ...REASON_COUNTERS.map(
    ([name, path]): Property => ({
      name: `clocks_event_reasons_counters.${name}`,
      unit: "us",
      read: figure(`clocks_event_reasons_counters/clocks_event_reasons_counters_${path}`),
    }),
  ),
  { name: "pcie.link.gen.current", read: figure(`${LINK}/pcie_gen/current_link_gen`) },
  { name: "pcie.link.gen.gpucurrent", read: figure(`${LINK}/pcie_gen/device_current_link_gen`) },
  { name: "pcie.link.gen.max", read: figure(`${LINK}/pcie_gen/max_link_gen`) },
  { name: "pcie.link.gen.gpumax", read: figure(`${LINK}/pcie_gen/max_device_link_gen`) },
  { name: "pcie.link.gen.hostmax", read: figure(`${LINK}/pcie_gen/max_host_link_gen`) },
  { name: "pcie.link.width.current", read: figure(`${LINK}/link_widths/current_link_width`) },
  { name: "pcie.link.width.max", read: figure(`${LINK}/link_widths/max_link_width`) },
  { name: "pcie.throughput.tx", unit: "KB/s", read: figure("pci/tx_util") },
  { name: "pcie.throughput.rx", unit: "KB/s", read: figure("pci/rx_util") },
  { name: "pcie.replay_counter", read: figure("pci/replay_counter") },
  { name: "ecc.mode.current", read: word(SWITCH, "ecc_mode/current_ecc") },
  { name: "ecc.mode.pending", read: word(SWITCH, "ecc_mode/pending_ecc") },
  ...ecc("corrected", "volatile"),
  ...ecc("corrected", "aggregate"),
  ...ecc("uncorrected", "volatile"),
  ...ecc("uncorrected", "aggregate"),
  ...(["volatile", "aggregate"] as const).flatMap((period) =>
    ["parity", "secded"].map(
      (code): Property => ({
        name: `ecc.errors.uncorrected.${period}.sram.${code}`,
        read: figure(`ecc_errors/${period}/sram_uncorrectable_${code}`),
      }),
    ),
  ),
  ...SRAM_SOURCES.map(
    ([name, path]): Property => ({
      name: `ecc.errors.uncorrected.aggregate.sram.${name}`,
      read: figure(`ecc_errors/aggregate_uncorrectable_sram_sources/sram_${path}`),
    }),
  ),
  {
    name: "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded",
    read: word(SWITCH, "ecc_errors/aggregate/sram_threshold_exceeded"),
  },
  {
    name: "retired_pages.single_bit_ecc.count",
    read: figure("retired_pages/multiple_single_bit_retirement/retired_count"),
  },
  { name: "retired_pages.double_bit.count", read: figure("retired_pages/double_bit_retirement/retired_count") },
  {
    name: "retired_pages.pending",
    read: word(SWITCH, "retired_pages/pending_retirement", "retired_pages/pending_blacklist"),
  },
  { name: "remapped_rows.correctable", read: figure("remapped_rows/remapped_row_corr") },
  { name: "remapped_rows.uncorrectable", read: figure("remapped_rows/remapped_row_unc") },
  { name: "remapped_rows.pending", read: word(SWITCH, "remapped_rows/remapped_row_pending") },
  { name: "remapped_rows.failure", read: word(SWITCH, "remapped_rows/remapped_row_failure") },
  ...["max", "high", "partial", "low", "none"].map(
    (level): Property => ({
      name: `remapped_rows.histogram.${level}`,
      read: figure(`remapped_rows/row_remapper_histogram/row_remapper_histogram_${level}`),
    }),
  ),
  { name: "persistence_mode", read: word(SWITCH, "persistence_mode") },
  { name: "display_attached", read: word(SWITCH, "display_attached") },
  { name: "display_active", read: word(SWITCH, "display_active") },
  { name: "compute_mode", read: word(COMPUTE_MODE, "compute_mode") },
  { name: "mig.mode.current", read: word(SWITCH, "mig_mode/current_mig") },
  { name: "mig.mode.pending", read: word(SWITCH, "mig_mode/pending_mig") },
  { name: "gpu_recovery_action", read: word(RECOVERY_ACTION, "gpu_recovery_action") },
  { name: "fabric.state", read: word(FABRIC_STATE, "fabric/state") },
];

const BY_NAME: ReadonlyMap<string, Property> = new Map(PROPERTIES.map((property) => [property.name, property]));

/** One property by its name, in nvidia-smi's unit; undefined where the driver does not tell it. */
export function propertyOf(name: string, values: Values): number | undefined {
  return BY_NAME.get(name)?.read(values);
}

/** The properties a GPU's values tell, by name, in nvidia-smi's units. */
export function propertiesOf(values: Values): Map<string, number> {
  const told = new Map<string, number>();
  for (const { name, read } of PROPERTIES) {
    const number = read(values);
    if (number !== undefined) told.set(name, number);
  }
  return told;
}
