import { readFileSync } from "node:fs";
import { resolve } from "node:path";

const root = resolve(import.meta.dirname, "../..");

/** What a panel asks. */
export interface PanelQuery {
  panel: string;
  expression: string;
}

interface Panel {
  title: string;
  type: string;
  targets?: { expr: string }[];
}

/** The board of examples/grafana. */
export interface Board {
  title: string;
  schemaVersion: number;
  templating: { list: { name: string; type: string; definition?: string; query: unknown }[] };
  panels: (Panel & { id: number; gridPos: { x: number; y: number; w: number; h: number }; datasource?: unknown })[];
}

export function ownBoard(): Board {
  return JSON.parse(readFileSync(resolve(root, "examples/grafana/gpunode.json"), "utf8")) as Board;
}

export function queriesOf({ panels }: Board): PanelQuery[] {
  return panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ panel: title, expression: expr })));
}

/** The expression as Grafana sends it, with everything chosen. */
export function filledIn(expression: string): string {
  return expression
    .replaceAll("$__rate_interval", "10s")
    .replaceAll("$__range", "1m")
    .replaceAll(/\$(job|instance|gpu)\b/g, ".*");
}

/** Names of the families in an expression. */
export function familiesIn(expression: string): string[] {
  const names = expression.match(/\b(gpunode|nvidia_smi|process|nodejs|DCGM_FI|DCGM_EXP)_[A-Za-z0-9_]+/g) ?? [];
  return [...new Set(names.map((name) => name.replace(/(?<=_seconds)_(bucket|sum|count)$/, "")))];
}

/** Families a known board asks for, by what becomes of them here. */
export interface KnownBoard {
  title: string;
  told: readonly string[];
  /** Not told, and why. */
  notTold: Readonly<Record<string, string>>;
}

/** NVIDIA's own board for dcgm-exporter (grafana.com/grafana/dashboards/12239), revision 2. */
export const DCGM_BOARD: KnownBoard = {
  title: "NVIDIA DCGM Exporter Dashboard (12239)",
  told: [
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_FB_USED",
  ],
  notTold: { DCGM_FI_PROF_PIPE_TENSOR_ACTIVE: "a profiling counter, which nvidia-smi does not read" },
};

const ENERGY = "an energy counter, which nvidia-smi does not tell";
const ACTIVITY = "a profiling counter of MIG instances, which nvidia-smi does not read";
const BEFORE = "the name of drivers before 535; the board takes either, and gpunode has the new one for all";

/** The boards of nvidia_gpu_exporter (grafana.com/grafana/dashboards/14574 and its overview, 25547). */
export const EXPORTER_BOARD: KnownBoard = {
  title: "Nvidia GPU Metrics (14574)",
  told: [
    "nvidia_smi_clocks_current_graphics_clock_hz",
    "nvidia_smi_clocks_current_memory_clock_hz",
    "nvidia_smi_clocks_current_sm_clock_hz",
    "nvidia_smi_clocks_current_video_clock_hz",
    "nvidia_smi_clocks_event_reasons_applications_clocks_setting",
    "nvidia_smi_clocks_event_reasons_gpu_idle",
    "nvidia_smi_clocks_event_reasons_hw_power_brake_slowdown",
    "nvidia_smi_clocks_event_reasons_hw_thermal_slowdown",
    "nvidia_smi_clocks_event_reasons_sw_power_cap",
    "nvidia_smi_clocks_event_reasons_sw_thermal_slowdown",
    "nvidia_smi_clocks_event_reasons_sync_boost",
    "nvidia_smi_clocks_max_graphics_clock_hz",
    "nvidia_smi_clocks_max_memory_clock_hz",
    "nvidia_smi_compute_app_info",
    "nvidia_smi_compute_app_used_memory_bytes",
    "nvidia_smi_compute_apps_last_collect_success",
    "nvidia_smi_compute_mode",
    "nvidia_smi_ecc_errors_uncorrected_aggregate_total",
    "nvidia_smi_enforced_power_limit_watts",
    "nvidia_smi_fabric_state",
    "nvidia_smi_fan_speed_ratio",
    "nvidia_smi_gpu_info",
    "nvidia_smi_gpu_recovery_action",
    "nvidia_smi_index",
    "nvidia_smi_memory_total_bytes",
    "nvidia_smi_memory_used_bytes",
    "nvidia_smi_mig_info",
    "nvidia_smi_mig_memory_used_bytes",
    "nvidia_smi_pcie_throughput_rx_bytes_per_second",
    "nvidia_smi_pcie_throughput_tx_bytes_per_second",
    "nvidia_smi_power_default_limit_watts",
    "nvidia_smi_power_draw_watts",
    "nvidia_smi_power_limit_watts",
    "nvidia_smi_pstate",
    "nvidia_smi_temperature_gpu",
    "nvidia_smi_utilization_gpu_ratio",
    "nvidia_smi_utilization_memory_ratio",
    "nvidia_smi_xid_errors_total",
    "nvidia_smi_xid_last_timestamp_seconds",
  ],
  notTold: {
    nvidia_smi_energy_joules_total: ENERGY,
    nvidia_smi_mig_sm_activity_ratio: ACTIVITY,
    nvidia_smi_mig_tensor_activity_ratio: ACTIVITY,
    nvidia_smi_clocks_throttle_reasons_applications_clocks_setting: BEFORE,
    nvidia_smi_clocks_throttle_reasons_gpu_idle: BEFORE,
    nvidia_smi_clocks_throttle_reasons_hw_power_brake_slowdown: BEFORE,
    nvidia_smi_clocks_throttle_reasons_hw_thermal_slowdown: BEFORE,
    nvidia_smi_clocks_throttle_reasons_sw_power_cap: BEFORE,
    nvidia_smi_clocks_throttle_reasons_sw_thermal_slowdown: BEFORE,
    nvidia_smi_clocks_throttle_reasons_sync_boost: BEFORE,
  },
};
