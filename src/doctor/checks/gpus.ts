import { HealthJudge } from "../../gpu/judge.ts";
import { absentValue } from "../../gpu/nvidia/xml.ts";
import type { Gpu, HealthReason } from "../../protocol/gpu.ts";
import { advice, type Check, check, command, failure, had, note, ok, type Step, skipped, warning } from "../check.ts";
import type { DaemonFacts, DriverFacts, GpuFacts, KernelLogFacts } from "../facts.ts";
import { gpusNamed, list, size } from "../words.ts";

const NONE = "no GPU answers";
/** Idle GPUs let their link slow down on purpose. */
const LOADED_PERCENT = 30;

/** Each GPU: how it feels, and how it is set. */
export const GPU_CHECKS: readonly Check[] = [
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
      if (all.length === 0) return skipped(NONE);
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
    id: "persistence-mode",
    title: "Persistence mode is on",
    looks: "`persistence_mode` of each GPU, and the service nvidia-persistenced",
    why: "without it the driver lets go of an idle GPU: each job's start takes seconds longer, and settings such as power limits are forgotten",
    mends: "start nvidia-persistenced, or `nvidia-smi -pm 1`",
    needs: ["gpus", "driver", "system"],
    judge({ gpus: { inventory, smi }, driver: { persistenced }, system }) {
      const known = inventory.gpus.filter(({ persistenceMode }) => persistenceMode !== undefined);
      if (known.length === 0) return skipped(inventory.gpus.length === 0 ? NONE : "the driver does not tell");
      const off = known.filter(({ persistenceMode }) => persistenceMode === false);
      if (off.length === 0) return ok("on");
      const now = command(smi, "-pm", "1");
      const lasting = system.hasSystemd && persistenced !== undefined && !persistenced.keepsOff;
      const steps = lasting
        ? [command("systemctl", "enable", "--now", "nvidia-persistenced")]
        : [
            now,
            advice(
              persistenced?.keepsOff === true
                ? 'this lasts until the next boot; to keep it, take "--no-persistence-mode" out of ExecStart with "systemctl edit --full nvidia-persistenced"'
                : "this lasts until the next boot; to keep it, install and enable nvidia-persistenced",
            ),
          ];
      return warning(`persistence mode is off on ${gpusNamed(off)}`, steps, "safe");
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
      if (inventory.gpus.length === 0) return skipped(NONE);
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
  check({
    id: "display",
    title: "No GPU drives a display",
    looks: "`display_active` of each GPU",
    why: "the desktop has some of its memory and its time, and stutters while work runs on it",
    mends:
      "plug the monitor into the processor's own graphics, or leave it so and keep the hours for yourself (`availability.windows`)",
    needs: ["gpus"],
    judge({ gpus: { inventory } }) {
      if (inventory.gpus.length === 0) return skipped(NONE);
      const driving = inventory.gpus.filter(({ displayActive }) => displayActive === true);
      if (driving.length === 0) return ok("none does");
      return note(
        `${gpusNamed(driving)} ${driving.length === 1 ? "drives" : "drive"} a display, and would be shared with the desktop`,
      );
    },
  }),
  check({
    id: "foreign-processes",
    title: "Nobody else uses the GPUs now",
    looks: "processes on the GPUs that belong to no workload of this node ([preemption.md](preemption.md))",
    why: "a GPU that its owner uses is not lent, and work already on it is taken off",
    mends: "end the programs, or leave them: the GPU is lent again a minute after the last one has gone",
    needs: ["gpus", "config"],
    uses: ["daemon"],
    judge({ gpus: { inventory, inContainers }, config: { config }, daemon }) {
      if (inventory.gpus.length === 0) return skipped(NONE);
      const own = workloadPids(had(daemon));
      const limitMiB = config.availability.yieldToOwner.vramMiB;
      const foreign = inventory.gpus.flatMap(({ index, uuid }) =>
        (inventory.processes.get(uuid) ?? [])
          .filter(({ pid }) => !own.has(pid))
          .map((process) => ({ index, ...process })),
      );
      if (foreign.length === 0) return ok("nobody does");
      const words = foreign.slice(0, 8).map(({ index, name, pid, vramUsedMiB }) => {
        const uses = vramUsedMiB === undefined ? "" : ` with ${size(vramUsedMiB)}`;
        const where = inContainers.has(pid) ? " in a container" : "";
        return `${name || "a process"} (pid ${pid})${where}${uses} on GPU ${index}`;
      });
      const found = `${list(words)}${foreign.length > words.length ? ` and ${foreign.length - words.length} more` : ""}`;
      const isHeavy = foreign.some(({ vramUsedMiB = 0 }) => vramUsedMiB > limitMiB);
      return isHeavy ? warning(`${found}; above ${size(limitMiB)} it keeps the GPU from being lent`) : note(found);
    },
  }),
  check({
    id: "power-limit",
    title: "The GPUs may draw their full power",
    looks: "the power limit in force and the board's own",
    why: "a lower limit saves power and noise, and makes work slower; coordinators are told of it",
    mends: "nothing, where it is wanted; else `nvidia-smi -pl`",
    needs: ["gpus"],
    judge({ gpus: { inventory, smi } }) {
      if (inventory.gpus.length === 0) return skipped(NONE);
      const capped = inventory.gpus.filter(
        ({ powerLimitWatts: now, powerLimitDefaultWatts: own }) =>
          now !== undefined && own !== undefined && now < own - 1,
      );
      if (capped.length === 0) return ok("no limit is below the board's own");
      const words = capped.map(
        (gpu) => `GPU ${gpu.index} is held to ${gpu.powerLimitWatts} of ${gpu.powerLimitDefaultWatts} W`,
      );
      const steps = capped.map((gpu) =>
        command(smi, "-i", String(gpu.index), "-pl", String(gpu.powerLimitDefaultWatts)),
      );
      return note(list(words), [advice("where that is not your wish:"), ...steps]);
    },
  }),
  check({
    id: "ecc-mode",
    title: "ECC is on where the board has it",
    looks: "`ecc_mode`, now and after the next reset",
    why: "without it a flipped bit in memory is a wrong result that nobody notices",
    mends: "`nvidia-smi -e 1`, then a reset of the GPU",
    needs: ["gpus"],
    judge({ gpus: { inventory, smi } }) {
      const known = inventory.gpus.filter(({ eccEnabled }) => eccEnabled !== undefined);
      if (known.length === 0)
        return skipped(inventory.gpus.length === 0 ? NONE : "no board here has ECC that can be switched");
      const pending = known.filter((gpu) => {
        const later = absentValue(inventory.raw?.get(gpu.uuid)?.get("ecc_mode/pending_ecc"));
        return later !== undefined && (later === "Enabled") !== gpu.eccEnabled;
      });
      if (pending.length > 0) {
        return note(`${gpusNamed(pending)}: ECC changes at the next reset`, [
          command(smi, "-i", indexes(pending), "--gpu-reset"),
        ]);
      }
      // Boards for games come with it off, where they have it at all.
      const off = known.filter(({ eccEnabled, name }) => eccEnabled === false && !/GeForce/.test(name));
      if (off.length === 0)
        return ok(known.some(({ eccEnabled }) => eccEnabled) ? "on" : "off, as GeForce boards come");
      return note(`ECC is off on ${gpusNamed(off)}`, [
        command(smi, "-i", indexes(off), "-e", "1"),
        command(smi, "-i", indexes(off), "--gpu-reset"),
      ]);
    },
  }),
  check({
    id: "compute-mode",
    title: "The GPUs take any program",
    looks: "`compute_mode` of each GPU",
    why: "in Prohibited nothing can compute; in an exclusive mode only one process can, and many frameworks use several",
    mends: "`nvidia-smi -c 0`",
    needs: ["gpus"],
    judge({ gpus: { inventory, smi } }) {
      const all = inventory.gpus;
      if (all.length === 0) return skipped(NONE);
      const prohibited = all.filter(({ computeMode }) => computeMode === "Prohibited");
      if (prohibited.length > 0) {
        return failure(`${gpusNamed(prohibited)}: compute mode Prohibited`, [
          command(smi, "-i", indexes(prohibited), "-c", "0"),
        ]);
      }
      const exclusive = all.filter(({ computeMode }) => computeMode?.startsWith("Exclusive") === true);
      if (exclusive.length === 0) return ok("compute mode Default");
      return warning(`${gpusNamed(exclusive)}: compute mode ${exclusive[0]?.computeMode}`, [
        command(smi, "-i", indexes(exclusive), "-c", "0"),
      ]);
    },
  }),
  check({
    id: "mig-mode",
    title: "MIG is settled",
    looks: "`mig_mode`, now and after the next reset, and the instances",
    why: "a board in MIG mode without an instance has nothing to lend",
    mends: "make instances with `nvidia-smi mig`, or switch the mode off",
    needs: ["gpus"],
    judge({ gpus: { inventory, smi } }) {
      const able = inventory.gpus.filter(({ mig }) => mig !== undefined);
      if (able.length === 0) return skipped(inventory.gpus.length === 0 ? NONE : "no board here has MIG");
      const pending = able.filter((gpu) => {
        const later = absentValue(inventory.raw?.get(gpu.uuid)?.get("mig_mode/pending_mig"));
        return later !== undefined && (later === "Enabled") !== gpu.mig?.enabled;
      });
      if (pending.length > 0) {
        return warning(`${gpusNamed(pending)}: MIG changes at the next reset`, [
          command(smi, "-i", indexes(pending), "--gpu-reset"),
        ]);
      }
      const empty = able.filter(({ mig }) => mig?.enabled === true && mig.instances.length === 0);
      if (empty.length > 0) {
        return failure(`${gpusNamed(empty)}: in MIG mode, without an instance`, [
          command(smi, "mig", "-i", indexes(empty), "-lgip"),
          advice(`make instances of a profile it lists ("${smi} mig -cgi PROFILE -C"), or switch MIG off:`),
          command(smi, "-i", indexes(empty), "-mig", "0"),
        ]);
      }
      const split = able.filter(({ mig }) => mig?.enabled === true);
      return ok(
        split.length === 0
          ? "off"
          : `${gpusNamed(split)} split into ${split.flatMap(({ mig }) => mig?.instances ?? []).length} instances`,
      );
    },
  }),
  check({
    id: "peer-to-peer",
    title: "GPUs can reach each other's memory",
    looks: "whether the IOMMU translates (`/sys/kernel/iommu_groups`), where there is more than one GPU",
    why: "copies between GPUs then go through the machine's memory, and some programs that use several hang (NCCL)",
    mends: "the kernel's option `iommu=pt`; on servers ACS off in the firmware",
    needs: ["gpus", "driver"],
    judge({ gpus: { inventory, simulated }, driver }) {
      if (inventory.gpus.length < 2) return skipped("there is one GPU, or none");
      if (simulated) return skipped("the GPUs are simulated");
      if (!driver.iommuTranslates) return ok("the IOMMU is off, or passes through");
      return note(`the IOMMU translates, with ${inventory.gpus.length} GPUs here`, [
        advice(
          'where work on several GPUs is slow or hangs: add "iommu=pt" to GRUB_CMDLINE_LINUX in /etc/default/grub, update GRUB, reboot',
        ),
      ]);
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
      const running = had(daemon);
      if (running?.state === "running") {
        const told = running.snapshot.problems.find(({ code }) => code === "kernel_log_unreadable");
        // A node without a GPU reads it all the same, and does not say so.
        if (told !== undefined) return warning(told.message, INSTALL_ANEW);
        return ok(`the daemon reads ${kernelLog.path}`);
      }
      const { unit, user } = service;
      const hasRight = user.uid === 0 || unit?.capabilities.includes("CAP_SYSLOG") === true;
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
];

const INSTALL_ANEW: readonly Step[] = [command("gpunode", "service", "install")];

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

function workloadPids(daemon: DaemonFacts | undefined): Set<number> {
  if (daemon?.state !== "running") return new Set();
  const processes = daemon.snapshot.gpus.flatMap(({ telemetry }) => telemetry?.processes ?? []);
  return new Set(processes.filter(({ workload }) => workload !== undefined).map(({ pid }) => pid));
}

function indexes(gpus: readonly Gpu[]): string {
  return gpus.map(({ index }) => index).join(",");
}
