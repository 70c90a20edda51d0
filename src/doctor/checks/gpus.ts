import { absentValue } from "../../gpu/nvidia/xml.ts";
import { advice, type Check, check, command, failure, had, note, ok, skipped, warning } from "../check.ts";
import type { DaemonFacts } from "../facts.ts";
import { whereReloadIsSafe } from "../trap.ts";
import { gpusNamed, indexes, list, NO_GPU, size } from "../words.ts";

/** How each GPU is set, and who uses it. */
export const GPU_CHECKS: readonly Check[] = [
  check({
    id: "persistence-mode",
    title: "Persistence mode is on",
    looks: "`persistence_mode` of each GPU, and the service nvidia-persistenced",
    why: "without it the driver lets go of an idle GPU: each job's start takes seconds longer, and settings such as power limits are forgotten",
    mends: "start nvidia-persistenced, or `nvidia-smi -pm 1`",
    needs: ["gpus", "driver", "system"],
    uses: ["engine", "toolkit"],
    judge({ gpus: { inventory, smi, simulated }, driver: { persistenced }, system, engine, toolkit }) {
      const known = inventory.gpus.filter(({ persistenceMode }) => persistenceMode !== undefined);
      if (known.length === 0) return skipped(inventory.gpus.length === 0 ? NO_GPU : "the driver does not tell");
      const off = known.filter(({ persistenceMode }) => persistenceMode === false);
      if (off.length === 0) return ok("on");
      const now = command(smi, "-pm", "1");
      const lasting = system.hasSystemd && persistenced !== undefined && !persistenced.keepsOff;
      const steps = lasting
        ? // The service alone does not undo an "nvidia-smi -pm 0".
          [command("systemctl", "enable", "--now", "nvidia-persistenced"), now]
        : [
            now,
            advice(
              persistenced?.keepsOff === true
                ? 'this lasts until the next boot; to keep it, take "--no-persistence-mode" out of ExecStart with "systemctl edit --full nvidia-persistenced"'
                : "this lasts until the next boot; to keep it, install and enable nvidia-persistenced",
            ),
          ];
      const safe = lasting ? whereReloadIsSafe("safe", { engine, toolkit }) : "safe";
      const auto = simulated ? undefined : safe;
      return warning(`persistence mode is off on ${gpusNamed(off)}`, steps, auto);
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
      if (inventory.gpus.length === 0) return skipped(NO_GPU);
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
      if (inventory.gpus.length === 0) return skipped(NO_GPU);
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
      if (inventory.gpus.length === 0) return skipped(NO_GPU);
      const capped = inventory.gpus.filter(
        ({ powerLimitWatts: now, powerLimitDefaultWatts: own }) =>
          now !== undefined && own !== undefined && now < own - 1,
      );
      if (capped.length === 0) return ok("no limit is below the board's own");
      const alike = Map.groupBy(
        capped,
        ({ powerLimitWatts, powerLimitDefaultWatts }) => `${powerLimitWatts} of ${powerLimitDefaultWatts} W`,
      );
      const words = [...alike].map(
        ([limit, some]) => `${gpusNamed(some)} ${some.length === 1 ? "is" : "are"} held to ${limit}`,
      );
      const steps = [...alike.values()].map((some) =>
        command(smi, "-i", indexes(some), "-pl", String(some[0]?.powerLimitDefaultWatts)),
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
        return skipped(inventory.gpus.length === 0 ? NO_GPU : "no board here has ECC that can be switched");
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
      if (all.length === 0) return skipped(NO_GPU);
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
      if (able.length === 0) return skipped(inventory.gpus.length === 0 ? NO_GPU : "no board here has MIG");
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
];

function workloadPids(daemon: DaemonFacts | undefined): Set<number> {
  if (daemon?.state !== "running") return new Set();
  const processes = daemon.snapshot.gpus.flatMap(({ telemetry }) => telemetry?.processes ?? []);
  return new Set(processes.filter(({ workload }) => workload !== undefined).map(({ pid }) => pid));
}
