/** One condition of a GPU: what it means and what follows from it. docs/health.md is written from this table. */
export interface HealthRow {
  /** Stable, on the wire. */
  code: string;
  status: "degraded" | "failed";
  /** Whether running work is told and taken off, because it cannot go on rightly. */
  endsWork: boolean;
  /** Whether new work may be given this GPU. */
  allocatable: boolean;
  /** What tells of it. */
  told: string;
  /** When it is over. */
  until: string;
  source: string;
}

const MEMORY = 'NVIDIA, "GPU Memory Error Management"';
const PAGES = 'NVIDIA, "Dynamic Page Retirement"';
const NVML = "NVIDIA, nvml.h";
const XID_SOURCE = 'NVIDIA, "XID Errors"';

const degraded = { status: "degraded", endsWork: false, allocatable: true } as const;
const withheld = { status: "degraded", endsWork: false, allocatable: false } as const;
const failed = { status: "failed", endsWork: false, allocatable: false } as const;
const fatal = { status: "failed", endsWork: true, allocatable: false } as const;

export const HEALTH_TABLE = [
  {
    code: "gpu_lost",
    ...fatal,
    told: "a value of `-q -x` reads `GPU is lost`",
    until: "it answers again",
    source: NVML,
  },
  {
    code: "reset_required",
    ...fatal,
    told: "a value of `-q -x` reads `GPU requires reset`",
    until: "it answers again",
    source: NVML,
  },
  {
    code: "gpu_missing",
    ...fatal,
    told: "nvidia-smi no longer lists it",
    until: "it is listed again",
    source: "gpunode",
  },
  {
    code: "recovery_reset",
    ...failed,
    told: "`gpu_recovery_action` asks for a reset",
    until: "it asks for none",
    source: NVML,
  },
  {
    code: "recovery_reboot",
    ...failed,
    told: "`gpu_recovery_action` asks for a reboot",
    until: "it asks for none",
    source: NVML,
  },
  {
    code: "recovery_drain",
    ...withheld,
    told: "`gpu_recovery_action` asks to drain it",
    until: "it asks for none",
    source: NVML,
  },
  {
    code: "row_remap_failure",
    ...failed,
    told: "`remapped_row_failure` is `Yes`",
    until: "the board is replaced",
    source: MEMORY,
  },
  {
    code: "row_remap_pending",
    ...degraded,
    told: "`remapped_row_pending` is `Yes`",
    until: "the GPU is reset",
    source: MEMORY,
  },
  {
    code: "unrepairable_memory",
    ...failed,
    told: "`unrepairable_memory` is `Yes`",
    until: "the board is replaced",
    source: NVML,
  },
  {
    code: "sram_threshold_exceeded",
    ...degraded,
    told: "`sram_threshold_exceeded` is `Yes`",
    until: "the board is replaced",
    source: MEMORY,
  },
  {
    code: "repair_pending",
    ...degraded,
    told: "`channel_repair_pending` or `tpc_repair_pending` is `Yes`",
    until: "the GPU is reset",
    source: NVML,
  },
  {
    code: "page_retirement_pending",
    ...degraded,
    told: "`pending_retirement` (or `pending_blacklist`) is `Yes`",
    until: "the GPU is reset",
    source: PAGES,
  },
  {
    code: "many_retired_pages",
    ...degraded,
    told: "60 pages or more are retired",
    until: "the board is replaced",
    source: PAGES,
  },
  {
    code: "ecc_uncorrected",
    ...degraded,
    told: "uncorrectable ECC errors since the driver was loaded",
    until: "the driver is loaded anew",
    source: MEMORY,
  },
  {
    code: "inforom_corrupted",
    ...degraded,
    told: "a value of `inforom_version` cannot be read",
    until: "it can be read",
    source: NVML,
  },
  {
    code: "fabric_not_ready",
    ...withheld,
    told: "`fabric/state` is `In Progress`, or `fabric/status` is no `Success`",
    until: "the fabric manager has finished",
    source: 'NVIDIA, "Fabric Manager User Guide"',
  },
  {
    code: "fabric_unhealthy",
    ...degraded,
    told: "`fabric/health` tells of reduced bandwidth, unhealthy routes or a wrong configuration",
    until: "it does not",
    source: NVML,
  },
  {
    code: "nvswitch_fault",
    ...degraded,
    told: "a fatal SXid in the kernel log",
    until: "the driver is loaded anew, or an hour without another",
    source: 'NVIDIA, "Fabric Manager User Guide"',
  },
  {
    code: "thermal_throttling",
    ...degraded,
    told: "slowed down by heat for half of two minutes",
    until: "less than a twentieth of two minutes",
    source: NVML,
  },
  {
    code: "power_brake",
    ...degraded,
    told: "slowed down by the power supply for half of two minutes",
    until: "less than a twentieth of two minutes",
    source: NVML,
  },
  {
    code: "pcie_degraded",
    ...degraded,
    told: "under load its PCIe link is slower or narrower than the best this machine has seen of it",
    until: "it is as good again under load",
    source: "gpunode",
  },
  {
    code: "gpu_access_lost",
    ...degraded,
    told: "a container no longer sees it although the host does",
    until: "the container sees it, or has ended",
    source: 'NVIDIA container toolkit, "Troubleshooting"',
  },
] as const satisfies readonly HealthRow[];

export type HealthCode = (typeof HEALTH_TABLE)[number]["code"];

/** What follows from an Xid, by its class (`xid.ts`). Its code is `xid_` and its number. */
export const XID_CLASSES = {
  warning: {
    ...degraded,
    told: "an Xid of the class warning",
    until: "an hour without another, or the driver is loaded anew",
    source: XID_SOURCE,
  },
  reset: {
    ...fatal,
    told: "an Xid of the class reset",
    until: "`gpu_recovery_action` asks for none (drivers that tell it), else the driver is loaded anew",
    source: XID_SOURCE,
  },
  reboot: {
    ...fatal,
    told: "an Xid of the class reboot",
    until: "`gpu_recovery_action` asks for none (drivers that tell it), else a reboot",
    source: XID_SOURCE,
  },
} as const satisfies Record<string, Omit<HealthRow, "code">>;

const BY_CODE: ReadonlyMap<string, HealthRow> = new Map(HEALTH_TABLE.map((row) => [row.code, row]));

export function rowOf(code: HealthCode): HealthRow {
  return BY_CODE.get(code) as HealthRow;
}

/**
 * Whether a GPU with this reason may be given to new work. An Xid forbids it by its status alone; a reason that is not of the table (a
 * driver that does not answer) always does.
 */
export function isAllocatableWith(code: string): boolean {
  return /^xid_\d+$/.test(code) || (BY_CODE.get(code)?.allocatable ?? false);
}
