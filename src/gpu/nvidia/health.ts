import type { Health, HealthReason } from "../../protocol/gpu-health.ts";
import { type HealthCode, rowOf } from "./health-table.ts";
import { recoveryOf } from "./xid.ts";
import { absentValue, type SmiGpu, saysLost } from "./xml.ts";

/** NVIDIA's limit for a board to be replaced ("Dynamic Page Retirement", RMA policy). */
const RETIRED_PAGES_MAX = 60;

type Values = SmiGpu["values"];

/** What a GPU's own answer says of its health now. What shows only over time, or elsewhere, the judge adds. */
export function healthOf({ values }: Pick<SmiGpu, "values">): Health {
  const reasons: (HealthReason & { code: HealthCode })[] = [];
  const found = (code: HealthCode, message: string) => reasons.push({ code, message });
  const all = [...values.values()];
  if (all.some(saysLost)) {
    found(
      "gpu_lost",
      "it has fallen off the bus: power-cycle the machine; check its power and riser if it happens again",
    );
  }
  if (all.some((value) => /^\[?GPU requires reset\]?$/i.test(value))) {
    found("reset_required", 'it must be reset before it works again: stop what uses it, then "nvidia-smi --gpu-reset"');
  }
  recovery(values, found);
  memory(values, found);
  fabric(values, found);
  const inforom = [...values].some(
    ([path, value]) => path.startsWith("inforom_version/") && /^(\[?ERR!\]?|corrupted)$/i.test(value),
  );
  if (inforom) found("inforom_corrupted", "its infoROM cannot be read: it works, and its own records may be wrong");
  return healthFrom(reasons);
}

/** The worst of the reasons decides. */
export function healthFrom(reasons: readonly (HealthReason & { code: HealthCode })[]): Health {
  return { status: worst(reasons.map(({ code }) => rowOf(code).status)), reasons: [...reasons] };
}

export function worst(statuses: readonly Health["status"][]): Health["status"] {
  if (statuses.includes("failed")) return "failed";
  return statuses.includes("degraded") ? "degraded" : "healthy";
}

type Found = (code: HealthCode, message: string) => void;

function recovery(values: Values, found: Found): void {
  const action = absentValue(values.get("gpu_recovery_action"));
  if (action === undefined) return;
  const wanted = recoveryOf(action);
  if (wanted === "reset") found("recovery_reset", `the driver asks for a reset of it (${action})`);
  if (wanted === "reboot") found("recovery_reboot", `the driver asks for a reboot of the machine (${action})`);
  if (wanted === "drain")
    found("recovery_drain", `the driver asks to let its work end and then to reset it (${action})`);
}

function memory(values: Values, found: Found): void {
  if (values.get("remapped_rows/remapped_row_failure") === "Yes") {
    found("row_remap_failure", "a broken memory row could not be replaced: the board is due for replacement");
  }
  if (values.get("remapped_rows/remapped_row_pending") === "Yes") {
    found(
      "row_remap_pending",
      "a broken memory row is replaced at the next reset of the GPU: reset it when it is idle",
    );
  }
  if (values.get("ecc_errors/unrepairable_memory") === "Yes") {
    found("unrepairable_memory", "it has memory that cannot be repaired: the board is due for replacement");
  }
  if (values.get("ecc_errors/aggregate/sram_threshold_exceeded") === "Yes") {
    found(
      "sram_threshold_exceeded",
      "its SRAM has had more uncorrectable errors than NVIDIA allows: the board is due for replacement",
    );
  }
  if (
    values.get("ecc_errors/channel_repair_pending") === "Yes" ||
    values.get("ecc_errors/tpc_repair_pending") === "Yes"
  ) {
    found("repair_pending", "a broken part of it is repaired at the next reset of the GPU: reset it when it is idle");
  }
  if (
    values.get("retired_pages/pending_retirement") === "Yes" ||
    values.get("retired_pages/pending_blacklist") === "Yes"
  ) {
    found(
      "page_retirement_pending",
      "a broken memory page is retired at the next reset of the GPU: reset it when it is idle",
    );
  }
  const retired = sumOf(values, /^retired_pages\/.*retired_count$/);
  if (retired >= RETIRED_PAGES_MAX) {
    found(
      "many_retired_pages",
      `${retired} memory pages are retired, ${RETIRED_PAGES_MAX} are the limit: the board is due for replacement`,
    );
  }
  const uncorrected = uncorrectedEcc(values);
  if (uncorrected > 0) {
    found(
      "ecc_uncorrected",
      `${uncorrected} uncorrectable memory errors since the driver was loaded: reset it when it is idle`,
    );
  }
}

/** Volatile uncorrectable errors, over the spellings of drivers 340 to 610. */
export function uncorrectedEcc(values: Values): number {
  const total = count(values.get("ecc_errors/volatile/double_bit/total"));
  return total ?? sumOf(values, /^ecc_errors\/volatile\/[sd]ram_uncorrectable(_parity|_secded)?$/);
}

function fabric(values: Values, found: Found): void {
  const state = absentValue(values.get("fabric/state"));
  const status = absentValue(values.get("fabric/status"));
  if (state === "In Progress") {
    found("fabric_not_ready", `its NVLink fabric is not up (${state}): look at nvidia-fabricmanager`);
  } else if (state === "Completed" && status !== undefined && status !== "Success") {
    found("fabric_not_ready", `its NVLink fabric could not be set up (${status}): look at nvidia-fabricmanager`);
  }
  const wrong = [
    ...(absentValue(values.get("fabric/health/bandwidth")) === "Degraded" ? ["reduced bandwidth"] : []),
    ...(values.get("fabric/health/route_unhealthy") === "True" ? ["unhealthy routes"] : []),
    ...(values.get("fabric/health/access_timeout_recovery") === "True" ? ["access time-outs"] : []),
    ...(isWrongConfiguration(values.get("fabric/health/incorrect_configuration")) ? ["wrong configuration"] : []),
  ];
  if (wrong.length > 0) found("fabric_unhealthy", `its NVLink fabric has ${wrong.join(", ")}`);
}

function isWrongConfiguration(value: string | undefined): boolean {
  return absentValue(value) !== undefined && !/^(none|false|no)$/i.test(value ?? "");
}

function sumOf(values: Values, paths: RegExp): number {
  let sum = 0;
  for (const [path, value] of values) if (paths.test(path)) sum += count(value) ?? 0;
  return sum;
}

function count(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}
