import { HealthJudge } from "../../gpu/judge.ts";
import type { Gpu } from "../../protocol/gpu.ts";
import type { HealthReason } from "../../protocol/gpu-health.ts";
import { advice, type Check, check, command, failure, had, note, ok, type Step, skipped, warning } from "../check.ts";
import type { DaemonFacts, DriverFacts, GpuFacts, KernelLogFacts } from "../facts.ts";
import { indexes, list, NO_GPU } from "../words.ts";

/** Idle GPUs let their link slow down on purpose. */
const LOADED_PERCENT = 30;
const ELSEWHERE = advice("the service has the right to read it: see where it is, and what it belongs to (ls -l)");
const INSTALL_ANEW: readonly Step[] = [command("gpunode", "service", "install")];

/** How each GPU feels, and what would tell of it. */
export const GPU_HEALTH_CHECKS: readonly Check[] = [
  check({
    id: "gpu-health",
    title: "Every GPU is well",
    looks:
      "what `nvidia-smi` says of each GPU's health, the kernel log's Xid and SXid messages of this boot, and what the daemon has seen over time ([health.md](health.md))",
    why: "work on a GPU that computes wrongly, or not at all, is lost",
    mends: "what the reason asks for: a reset of the GPU, a reboot, a power cycle, a new board",
    needs: ["gpus"],
    uses: ["kernelLog", "daemon"],
    judge({ gpus, kernelLog, daemon }) {
      const all = gpus.inventory.gpus;
      if (all.length === 0) return skipped(NO_GPU);
      const ill = all
        .map((gpu) => ({ gpu, ...healthOf(gpu, gpus, had(kernelLog), had(daemon)) }))
        .filter(({ status }) => status !== "healthy");
      if (ill.length === 0) {
        const log = had(kernelLog)?.problem === undefined && had(kernelLog) !== undefined;
        return ok(
          `${all.length === 1 ? "it is" : `all ${all.length} are`} healthy${log ? ", and the kernel log has no fault" : ""}`,
        );
      }
      const found = ill.map(({ gpu, status, reasons }) => {
        const why = reasons.map(({ message }) => message);
        return `GPU ${gpu.index} (${gpu.name}) is ${status}: ${list(why)}`;
      });
      const codes = new Set(ill.flatMap(({ reasons }) => reasons.map(({ code }) => code)));
      const steps = stepsFor(
        codes,
        ill.map(({ gpu }) => gpu),
      );
      return (ill.some(({ status }) => status === "failed") ? failure : warning)(found.join("; "), steps);
    },
  }),
  check({
    id: "kernel-log",
    title: "The kernel log can be read",
    looks: "`nvidia.kernel_log`, as the daemon may read it",
    why: "the driver tells of most faults (Xid) only there: a broken GPU would go on being lent",
    mends: "run the daemon as the service, which has CAP_SYSLOG",
    needs: ["kernelLog", "service"],
    uses: ["daemon"],
    judge({ kernelLog, service, daemon }) {
      const { unit, user } = service;
      // Where it has, the log is not there, or elsewhere: the sentence says so.
      const hasRight = user.uid === 0 || unit?.capabilities.includes("CAP_SYSLOG") === true;
      const running = had(daemon);
      if (running?.state === "running") {
        const told = running.snapshot.problems.find(({ code }) => code === "kernel_log_unreadable");
        // A node without a GPU reads it all the same, and does not say so.
        if (told !== undefined) return warning(told.message, hasRight ? [ELSEWHERE] : INSTALL_ANEW);
        return ok(`the daemon reads ${kernelLog.path}`);
      }
      if (unit !== undefined && !hasRight && kernelLog.isRestricted) {
        return warning(
          `the service has no CAP_SYSLOG, and the kernel shows its log to nobody else (${kernelLog.path})`,
          INSTALL_ANEW,
        );
      }
      if (kernelLog.problem === undefined) return ok(`${kernelLog.path} can be read`);
      if (unit !== undefined && hasRight) return ok(`the service may read ${kernelLog.path}`);
      return warning(kernelLog.problem, INSTALL_ANEW);
    },
  }),
  check({
    id: "pcie-link",
    title: "The GPUs' PCIe links are whole",
    looks: "width of each link, of what the board and its slot can do; its speed too where the GPU works",
    why: "copies between the machine's memory and the GPU take as many times longer",
    mends: "seat the board anew, exchange the riser, use a slot wired for more lanes",
    needs: ["gpus"],
    uses: ["driver", "daemon"],
    judge({ gpus: { inventory }, driver, daemon }) {
      if (inventory.gpus.length === 0) return skipped(NO_GPU);
      const seen = inventory.gpus.flatMap((gpu) => linkProblem(gpu, inventory, had(driver), had(daemon)));
      const bad = seen.filter(({ isBad }) => isBad);
      if (bad.length > 0) {
        return warning(bad.map(({ words }) => words).join("; "), [
          advice(
            "power the machine off, seat the board and its riser anew, or put it into a slot wired for more lanes",
          ),
        ]);
      }
      if (seen.length > 0) return note(seen.map(({ words }) => words).join("; "));
      return ok("each runs at its full width");
    },
  }),
];

/** The judge's word of now, and what only a daemon that has watched can know. */
function healthOf(
  gpu: Gpu,
  { inventory, atMs }: GpuFacts,
  log: KernelLogFacts | undefined,
  daemon: DaemonFacts | undefined,
) {
  const judge = new HealthJudge({ now: () => atMs, memory: { get: () => undefined, set: () => undefined } });
  judge.read(inventory);
  for (const message of log?.messages ?? []) judge.kernel(message);
  const now = judge.healthOf(gpu.uuid);
  const watched =
    daemon?.state === "running" ? daemon.snapshot.gpus.find(({ uuid }) => uuid === gpu.uuid)?.health : undefined;
  const reasons = new Map<string, HealthReason>(
    [...now.reasons, ...(watched?.reasons ?? [])].map((reason) => [reason.code, reason]),
  );
  const statuses = [now.status, watched?.status];
  const status = (["failed", "degraded"] as const).find((one) => statuses.includes(one)) ?? "healthy";
  return { status, reasons: [...reasons.values()] };
}

/** What to do, from the words of health.md: how it is over. */
function stepsFor(codes: ReadonlySet<string>, gpus: readonly Gpu[]): readonly Step[] {
  const has = (...wanted: string[]) => wanted.some((code) => codes.has(code));
  if (has("gpu_lost", "gpu_missing", "xid_79", "xid_54")) {
    return [
      advice("power the machine off and on again; look at the board's power cables and riser where it happens again"),
    ];
  }
  if (has("row_remap_failure", "unrepairable_memory", "sram_threshold_exceeded", "many_retired_pages")) {
    return [advice("have the board replaced: its memory can no longer be repaired")];
  }
  if (has("recovery_reboot")) return [command("reboot")];
  if (has("thermal_throttling"))
    return [advice("clean its fans, give it more air, or lower its power limit (nvidia-smi -pl)")];
  if (has("power_brake")) return [advice("look at the power supply and its cables: it asks the GPU to slow down")];
  if (has("fabric_not_ready", "fabric_unhealthy")) {
    return [
      command("systemctl", "restart", "nvidia-fabricmanager"),
      command("journalctl", "-u", "nvidia-fabricmanager", "-n", "50"),
    ];
  }
  if (has("inforom_corrupted", "nvswitch_fault", "pcie_degraded")) return [];
  return [
    command("gpunode", "drain", "--maintenance"),
    command("nvidia-smi", "-i", indexes(gpus), "--gpu-reset"),
    command("gpunode", "resume"),
  ];
}

function linkProblem(
  gpu: Gpu,
  inventory: GpuFacts["inventory"],
  driver: DriverFacts | undefined,
  daemon: DaemonFacts | undefined,
): { words: string; isBad: boolean }[] {
  const watched = daemon?.state === "running" ? daemon.snapshot.gpus.find(({ uuid }) => uuid === gpu.uuid) : undefined;
  const told = watched?.health.reasons.find(({ code }) => code === "pcie_degraded");
  if (told !== undefined) return [{ words: `GPU ${gpu.index}: ${told.message}`, isBad: true }];
  const { linkWidth: width, linkWidthMax: most, linkGeneration: now, linkGenerationMax: best, busId } = gpu.pci ?? {};
  if (width !== undefined && most !== undefined && width < most) {
    const slot = driver?.slotWidths.get((busId ?? "").toLowerCase().replace(/^0000(?=[0-9a-f]{4}:)/, ""));
    if (slot !== undefined && slot > width) {
      return [
        {
          words: `GPU ${gpu.index} runs at ×${width}, its slot gives ×${slot}: it is badly seated, or its riser is at fault`,
          isBad: true,
        },
      ];
    }
    const what = slot === undefined ? `of ×${most}` : `which is all its slot gives; the board could ×${most}`;
    return [{ words: `GPU ${gpu.index} runs at ×${width}, ${what}`, isBad: width * 2 < most }];
  }
  const load = inventory.samples.find(({ uuid }) => uuid === gpu.uuid)?.utilizationPercent ?? 0;
  if (load >= LOADED_PERCENT && now !== undefined && best !== undefined && now < best) {
    return [{ words: `GPU ${gpu.index} works, and its link runs at generation ${now} of ${best}`, isBad: false }];
  }
  return [];
}
