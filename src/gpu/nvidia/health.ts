import type { Health } from "../../protocol/gpu.ts";
import { type SmiGpu, saysLost } from "./xml.ts";

interface Finding {
  status: "degraded" | "failed";
  code: string;
  message: string;
}

/**
 * What a GPU's own answer says of its health. Source of the row-remapping rows: NVIDIA, "GPU Memory Error Management" (a pending
 * remap takes effect with a reset; a failed one is ground for replacing the board); of the retired pages: NVIDIA, "Dynamic Page
 * Retirement".
 */
export function healthOf({ values }: SmiGpu): Health {
  const findings: Finding[] = [];
  if ([...values.values()].some(saysLost)) {
    findings.push({
      status: "failed",
      code: "gpu_lost",
      message: "it has fallen off the bus: power-cycle the machine; check its power and riser if it happens again",
    });
  }
  if (values.get("remapped_rows/remapped_row_failure") === "Yes") {
    findings.push({
      status: "failed",
      code: "row_remap_failure",
      message: "a broken memory row could not be replaced: the board is due for replacement",
    });
  }
  if (values.get("remapped_rows/remapped_row_pending") === "Yes") {
    findings.push({
      status: "degraded",
      code: "row_remap_pending",
      message: "a broken memory row is replaced at the next reset of the GPU: reset it when it is idle",
    });
  }
  if (
    values.get("retired_pages/pending_retirement") === "Yes" ||
    values.get("retired_pages/pending_blacklist") === "Yes"
  ) {
    findings.push({
      status: "degraded",
      code: "page_retirement_pending",
      message: "a broken memory page is retired at the next reset of the GPU: reset it when it is idle",
    });
  }
  const status = findings.some((finding) => finding.status === "failed")
    ? "failed"
    : findings.length > 0
      ? "degraded"
      : "healthy";
  return { status, reasons: findings.map(({ code, message }) => ({ code, message })) };
}
