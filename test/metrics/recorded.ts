import { WANTED_FIELDS } from "../../src/gpu/nvidia/fields.ts";
import { type Inventory, inventoryOf } from "../../src/gpu/nvidia/inventory.ts";
import { readRow } from "../../src/gpu/nvidia/sample-row.ts";
import { readSmiXml } from "../../src/gpu/nvidia/xml.ts";
import type { GpuTelemetry } from "../../src/protocol/gpu.ts";

/** A machine as it was recorded, at rest or at work, read by our readers. */
export interface Recorded {
  inventory: Inventory;
  /** The rows of `--query-gpu`, as a stream's. */
  samples: GpuTelemetry[];
}

/**
 * A recording has no `-q -x`, but `-q`: the same tree of the same driver with other words on its branches. This is the element of each
 * branch we read, by its words. Source: documents and texts of the same drivers.
 */
const ELEMENTS: Readonly<Record<string, string>> = {
  "Product Name": "product_name",
  "Product Architecture": "product_architecture",
  "Display Attached": "display_attached",
  "Display Active": "display_active",
  "Persistence Mode": "persistence_mode",
  "MIG Mode/Current": "mig_mode/current_mig",
  "MIG Mode/Pending": "mig_mode/pending_mig",
  "Driver Model/Current": "driver_model/current_dm",
  "Driver Model/Pending": "driver_model/pending_dm",
  "Serial Number": "serial",
  "GPU UUID": "uuid",
  "Minor Number": "minor_number",
  "VBIOS Version": "vbios_version",
  "GPU Recovery Action": "gpu_recovery_action",
  "PCI/Bus Id": "pci/pci_bus_id",
  "PCI/Sub System Id": "pci/pci_sub_system_id",
  "PCI/GPU Link Info/PCIe Generation/Max": "pci/pci_gpu_link_info/pcie_gen/max_link_gen",
  "PCI/GPU Link Info/PCIe Generation/Current": "pci/pci_gpu_link_info/pcie_gen/current_link_gen",
  "PCI/GPU Link Info/PCIe Generation/Device Current": "pci/pci_gpu_link_info/pcie_gen/device_current_link_gen",
  "PCI/GPU Link Info/PCIe Generation/Device Max": "pci/pci_gpu_link_info/pcie_gen/max_device_link_gen",
  "PCI/GPU Link Info/PCIe Generation/Host Max": "pci/pci_gpu_link_info/pcie_gen/max_host_link_gen",
  "PCI/GPU Link Info/Link Width/Max": "pci/pci_gpu_link_info/link_widths/max_link_width",
  "PCI/GPU Link Info/Link Width/Current": "pci/pci_gpu_link_info/link_widths/current_link_width",
  "PCI/Replays Since Reset": "pci/replay_counter",
  "PCI/Tx Throughput": "pci/tx_util",
  "PCI/Rx Throughput": "pci/rx_util",
  "Fan Speed": "fan_speed",
  "Performance State": "performance_state",
  "FB Memory Usage/Total": "fb_memory_usage/total",
  "FB Memory Usage/Reserved": "fb_memory_usage/reserved",
  "FB Memory Usage/Used": "fb_memory_usage/used",
  "FB Memory Usage/Free": "fb_memory_usage/free",
  "Compute Mode": "compute_mode",
  "Utilization/GPU": "utilization/gpu_util",
  "Utilization/Memory": "utilization/memory_util",
  "Utilization/Encoder": "utilization/encoder_util",
  "Utilization/Decoder": "utilization/decoder_util",
  "Utilization/JPEG": "utilization/jpeg_util",
  "Utilization/OFA": "utilization/ofa_util",
  "Encoder Stats/Active Sessions": "encoder_stats/session_count",
  "Encoder Stats/Average FPS": "encoder_stats/average_fps",
  "Encoder Stats/Average Latency": "encoder_stats/average_latency",
  "ECC Mode/Current": "ecc_mode/current_ecc",
  "ECC Mode/Pending": "ecc_mode/pending_ecc",
  ...Object.fromEntries(
    ["Volatile", "Aggregate"].flatMap((period) =>
      [
        ["SRAM Correctable", "sram_correctable"],
        ["SRAM Uncorrectable", "sram_uncorrectable"],
        ["SRAM Uncorrectable Parity", "sram_uncorrectable_parity"],
        ["SRAM Uncorrectable SEC-DED", "sram_uncorrectable_secded"],
        ["DRAM Correctable", "dram_correctable"],
        ["DRAM Uncorrectable", "dram_uncorrectable"],
        ["SRAM Threshold Exceeded", "sram_threshold_exceeded"],
      ].map(([words, element]) => [`ECC Errors/${period}/${words}`, `ecc_errors/${period.toLowerCase()}/${element}`]),
    ),
  ),
  ...Object.fromEntries(
    [
      ["L2", "l2"],
      ["SM", "sm"],
      ["Microcontroller", "microcontroller"],
      ["PCIE", "pcie"],
      ["Other", "other"],
    ].map(([words, element]) => [
      `ECC Errors/Aggregate Uncorrectable SRAM Sources/SRAM ${words}`,
      `ecc_errors/aggregate_uncorrectable_sram_sources/sram_${element}`,
    ]),
  ),
  "Retired Pages/Single Bit ECC": "retired_pages/multiple_single_bit_retirement/retired_count",
  "Retired Pages/Double Bit ECC": "retired_pages/double_bit_retirement/retired_count",
  "Retired Pages/Pending Page Blacklist": "retired_pages/pending_blacklist",
  "Remapped Rows/Correctable Error": "remapped_rows/remapped_row_corr",
  "Remapped Rows/Uncorrectable Error": "remapped_rows/remapped_row_unc",
  "Remapped Rows/Pending": "remapped_rows/remapped_row_pending",
  "Remapped Rows/Remapping Failure Occurred": "remapped_rows/remapped_row_failure",
  ...Object.fromEntries(
    ["Max", "High", "Partial", "Low", "None"].map((level) => [
      `Remapped Rows/Bank Remap Availability Histogram/${level}`,
      `remapped_rows/row_remapper_histogram/row_remapper_histogram_${level.toLowerCase()}`,
    ]),
  ),
  "Temperature/GPU Current Temp": "temperature/gpu_temp",
  "Temperature/GPU T.Limit Temp": "temperature/gpu_temp_tlimit",
  "Temperature/Memory Current Temp": "temperature/memory_temp",
  "GPU Power Readings/Average Power Draw": "gpu_power_readings/average_power_draw",
  "GPU Power Readings/Instantaneous Power Draw": "gpu_power_readings/instant_power_draw",
  "GPU Power Readings/Current Power Limit": "gpu_power_readings/current_power_limit",
  "GPU Power Readings/Requested Power Limit": "gpu_power_readings/requested_power_limit",
  "GPU Power Readings/Default Power Limit": "gpu_power_readings/default_power_limit",
  // Of driver 610 no document was recorded: the name of its group is a guess, and not looked at.
  ...Object.fromEntries(
    ["Current", "Requested", "Default"].map((which) => [
      `GPU Power Readings/GPU Ceiling Power Limit/${which} Power Limit`,
      `gpu_power_readings/gpu_ceiling_power_limit/${which.toLowerCase()}_power_limit`,
    ]),
  ),
  "GPU Power Readings/Min Power Limit": "gpu_power_readings/min_power_limit",
  "GPU Power Readings/Max Power Limit": "gpu_power_readings/max_power_limit",
  "Clocks/Graphics": "clocks/graphics_clock",
  "Clocks/SM": "clocks/sm_clock",
  "Clocks/Memory": "clocks/mem_clock",
  "Clocks/Video": "clocks/video_clock",
  "Max Clocks/Graphics": "max_clocks/graphics_clock",
  "Max Clocks/SM": "max_clocks/sm_clock",
  "Max Clocks/Memory": "max_clocks/mem_clock",
  "Fabric/State": "fabric/state",
  ...Object.fromEntries(
    [
      ["Idle", "gpu_idle"],
      ["Applications Clocks Setting", "applications_clocks_setting"],
      ["SW Power Cap", "sw_power_cap"],
      ["HW Slowdown", "hw_slowdown"],
      ["HW Slowdown/HW Thermal Slowdown", "hw_thermal_slowdown"],
      ["HW Slowdown/HW Power Brake Slowdown", "hw_power_brake_slowdown"],
      ["Sync Boost", "sync_boost"],
      ["SW Thermal Slowdown", "sw_thermal_slowdown"],
      ["Display Clock Setting", "display_clocks_setting"],
    ].map(([words, name]) => [`Clocks Event Reasons/${words}`, `clocks_event_reasons/clocks_event_reason_${name}`]),
  ),
  ...Object.fromEntries(
    [
      ["SW Power Capping", "sw_power_cap"],
      ["Sync Boost", "sync_boost"],
      ["SW Thermal Slowdown", "sw_therm_slowdown"],
      ["HW Thermal Slowdown", "hw_therm_slowdown"],
      ["HW Power Braking", "hw_power_brake"],
    ].map(([words, name]) => [
      `Clocks Event Reasons Counters/${words}`,
      `clocks_event_reasons_counters/clocks_event_reasons_counters_${name}`,
    ]),
  ),
};

const MIG_ELEMENTS: Readonly<Record<string, string>> = {
  "GPU Instance ID": "gpu_instance_id",
  "Compute Instance ID": "compute_instance_id",
  "Shared FB Memory Usage/Total": "fb_memory_usage/total",
  "Shared FB Memory Usage/Used": "fb_memory_usage/used",
};

const PROCESS_ELEMENTS: Readonly<Record<string, string>> = {
  "Process ID": "pid",
  "Process ID/Type": "type",
  "Process ID/Name": "process_name",
  "Process ID/Used GPU Memory": "used_memory",
};

/** What moves from one command of a recording to the next: taken from the query, which the exporter was given, with its unit. */
const MOVING: Readonly<Record<string, readonly [element: string, unit: string]>> = {
  "clocks.current.graphics": ["clocks/graphics_clock", " MHz"],
  "clocks.current.video": ["clocks/video_clock", " MHz"],
  "power.draw.average": ["gpu_power_readings/average_power_draw", " W"],
  "power.draw.instant": ["gpu_power_readings/instant_power_draw", " W"],
  "temperature.gpu.tlimit": ["temperature/gpu_temp_tlimit", " C"],
  "encoder.stats.averageFps": ["encoder_stats/average_fps", ""],
  "encoder.stats.averageLatency": ["encoder_stats/average_latency", ""],
  "clocks_event_reasons_counters.sw_power_cap": [
    "clocks_event_reasons_counters/clocks_event_reasons_counters_sw_power_cap",
    " us",
  ],
};

/** What the recorded query calls by another name than our stream does. */
const NAMES: Readonly<Partial<Record<(typeof WANTED_FIELDS)[number], string>>> = {
  "clocks.sm": "clocks.current.sm",
  "clocks.mem": "clocks.current.memory",
  "clocks_throttle_reasons.active": "clocks_event_reasons.active",
};

/** Reads a recording of a machine in one of its two states. */
export function recorded(capture: string, state: "idle" | "load"): Recorded {
  const query = section(capture, `${state} :: query-gpu (csv, what the exporter parses)`).trim().split("\n");
  const names = (query[0] ?? "").split(", ").map((name) => name.replace(/ \[.*\]$/, ""));
  const rows = query.slice(1).map((row) => {
    const cells = row.split(", ").map((cell) => cell.replace(/^([\d.]+) (%|MiB|W|MHz|us)$/, "$1"));
    return new Map(names.map((name, position) => [name, cells[position] ?? ""]));
  });
  const capabilities = new Map(rows.map((row) => [row.get("uuid") ?? "", row.get("compute_cap") ?? ""]));
  const listing = section(capture, "capabilities :: list (-L)");
  const document = readSmiXml(documentOf(section(capture, `${state} :: query (-q)`), rows));
  return {
    inventory: inventoryOf(document, { capabilities, topology: "", listing }),
    samples: rows.flatMap((row) => {
      const line = WANTED_FIELDS.map((field) => row.get(NAMES[field] ?? field) ?? "[N/A]").join(", ");
      const read = readRow(line, WANTED_FIELDS);
      return read?.kind === "sample" ? [read.sample] : [];
    }),
  };
}

/** What follows a heading until the next. */
function section(capture: string, heading: string): string {
  const bar = "#".repeat(80);
  const from = capture.indexOf(`${bar}\n# ${heading}\n`);
  if (from < 0) throw new Error(`the recording has no "${heading}"`);
  const begins = capture.indexOf(`\n${bar}\n`, from + bar.length + 1) + bar.length + 2;
  const ends = capture.indexOf(`\n${bar}\n`, begins);
  return capture.slice(begins, ends < 0 ? undefined : ends);
}

interface Board {
  id: string;
  values: Map<string, string>;
  migDevices: Map<string, string>[];
  processes: Map<string, string>[];
}

/** The text as the document it would have been. */
function documentOf(text: string, rows: readonly ReadonlyMap<string, string>[]): string {
  const head = new Map<string, string>();
  const boards: Board[] = [];
  const path: string[] = [];
  for (const line of text.split("\n")) {
    const [, indent = "", words = "", value] = /^( *)(\S.*?) *(?: : (.*))?$/.exec(line.trimEnd()) ?? [];
    if (words === "" || words.startsWith("=")) continue;
    const depth = indent.length / 4;
    if (depth === 0) {
      const [, id] = /^GPU ([0-9A-F:.]+)$/.exec(words) ?? [];
      if (id !== undefined) boards.push({ id, values: new Map(), migDevices: [], processes: [] });
      else if (value !== undefined) head.set(words.toLowerCase().replaceAll(" ", "_"), value);
      continue;
    }
    path.length = depth - 1;
    path.push(words);
    const board = boards.at(-1);
    if (board === undefined) continue;
    const [group = "", ...inside] = path;
    if (group === "MIG Device") {
      if (inside.length === 0) board.migDevices.push(new Map());
      put(board.migDevices.at(-1), MIG_ELEMENTS[inside.join("/")], value);
    } else if (group === "Processes") {
      if (inside.join("/") === "Process ID") board.processes.push(new Map());
      put(board.processes.at(-1), PROCESS_ELEMENTS[inside.join("/")], value);
    } else put(board.values, ELEMENTS[path.join("/")], value);
  }
  for (const [index, { values }] of boards.entries()) {
    for (const [name, [element, unit]] of Object.entries(MOVING)) {
      const cell = rows[index]?.get(name);
      if (values.has(element) && cell !== undefined && /^[\d.]+$/.test(cell)) values.set(element, `${cell}${unit}`);
    }
  }
  const gpus = boards.map(({ id, values, migDevices, processes }) => {
    const parts = [
      ...[...values].map(elements),
      ...migDevices.map((device) => `<mig_device>${[...device].map(elements).join("")}</mig_device>`),
      ...processes.map((process) => `<process_info>${[...process].map(elements).join("")}</process_info>`),
    ];
    return `<gpu id="${id}">${parts.join("")}</gpu>`;
  });
  return `<nvidia_smi_log>${[...head].map(elements).join("")}${gpus.join("")}</nvidia_smi_log>`;
}

function put(values: Map<string, string> | undefined, element: string | undefined, value: string | undefined): void {
  if (element !== undefined && value !== undefined) values?.set(element, value);
}

/** One value in the elements of its path. */
function elements([path, value]: readonly [string, string]): string {
  const names = path.split("/");
  const text = value.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return names.reduceRight((inner, name) => `<${name}>${inner}</${name}>`, text);
}
