import { advice, type Check, check, command, failure, note, ok, skipped, warning } from "../check.ts";
import type { SleepFacts } from "../facts.ts";
import { whereReloadIsSafe } from "../trap.ts";
import { list, size } from "../words.ts";

/** Node 24's own demands (BUILDING.md, "Platform list"). */
const GLIBC_LEAST = [2, 28] as const;
const KERNEL_LEAST = [4, 18] as const;
const NODE_MAJOR_LEAST = 24;
const ARCHITECTURES = ["x64", "arm64"];
const MEMORY_LEAST_PERCENT = 5;
const SWAP_LEAST_PERCENT = 10;
/** Containers have 500 and more: the daemon is not to go before them. */
const OOM_POINTS_MOST = 300;

/** The machine around. */
export const HOST_CHECKS: readonly Check[] = [
  check({
    id: "platform",
    title: "gpunode runs on this system",
    looks: "architecture, kernel, C library and Node",
    why: "older ones lack what gpunode and its Node are built on",
    mends: "a newer release of the distribution",
    needs: ["system"],
    judge({ system: { architecture, kernel, glibc, node, os } }) {
      const problems = [
        ...(ARCHITECTURES.includes(architecture)
          ? []
          : [`the architecture is ${architecture}, ${list(ARCHITECTURES)} are known`]),
        ...(isBelow(kernel, KERNEL_LEAST) ? [`the kernel is ${kernel}, ${KERNEL_LEAST.join(".")} is the least`] : []),
        ...(glibc !== undefined && isBelow(glibc, GLIBC_LEAST)
          ? [`glibc is ${glibc}, ${GLIBC_LEAST.join(".")} is the least`]
          : []),
        ...(Number(node.slice(1).split(".")[0]) < NODE_MAJOR_LEAST
          ? [`Node is ${node}, ${NODE_MAJOR_LEAST} is the least`]
          : []),
      ];
      if (problems.length > 0)
        return failure(list(problems), [advice("run it on a newer release of your distribution")]);
      return ok(`${os.name}, kernel ${kernel}, ${glibc === undefined ? "no glibc" : `glibc ${glibc}`}, Node ${node}`);
    },
  }),
  check({
    id: "reboot-required",
    title: "No reboot is due",
    looks: "`/run/reboot-required`, and whether a newer kernel is installed than runs",
    why: "a reboot ends the work; better you choose the hour than somebody else does",
    mends: "`gpunode drain`, then reboot",
    needs: ["system"],
    judge({ system: { rebootFor, kernel, kernels } }) {
      const newest = kernels.at(-1);
      const isOld = newest !== undefined && kernels.includes(kernel) && newest !== kernel;
      if (rebootFor === undefined && kernels.length === 0) return skipped("nothing here tells");
      if (rebootFor === undefined && !isOld) return ok("none is");
      const why =
        rebootFor !== undefined && rebootFor.length > 0
          ? `for ${list(rebootFor.slice(0, 5))}`
          : isOld
            ? `kernel ${newest} is installed, ${kernel} runs`
            : "a package asks for it";
      return note(`a reboot is due: ${why}`, [
        advice("when it suits you:"),
        command("gpunode", "drain"),
        command("reboot"),
      ]);
    },
  }),
  check({
    id: "driver-upgrades",
    title: "Nothing changes the driver by itself",
    looks: "unattended-upgrades or dnf-automatic, and whether the driver's packages are held",
    why: "an upgrade by night leaves module and library at two versions: work that starts afterwards fails until a reboot",
    mends:
      "`apt-mark hold`, or a blacklist for unattended-upgrades; upgrade the driver yourself, after `gpunode drain --maintenance`",
    needs: ["upgrades"],
    judge({ upgrades: { by, loose } }) {
      if (by === undefined) return ok("nothing is upgraded by itself");
      if (loose.length === 0) return ok(`${by} runs, and no package of the driver is left to it`);
      const some = loose.slice(0, 4);
      const found = `${by} may upgrade ${list(some)}${loose.length > some.length ? ` and ${loose.length - some.length} more` : ""} while work runs`;
      const hold =
        by === "unattended-upgrades"
          ? command("apt-mark", "hold", ...loose)
          : command("dnf", "versionlock", "add", ...loose);
      return warning(
        found,
        [hold, advice('to upgrade it yourself: "gpunode drain --maintenance", lift the hold, upgrade, reboot')],
        "named",
      );
    },
  }),
  check({
    id: "sleep",
    title: "The machine does not fall asleep",
    looks: "systemd's sleep targets, what logind does on a closed lid and when idle, and whether there is a desktop",
    why: "a sleeping machine is a lost node: its coordinator gives the work to others",
    mends: "mask the sleep targets; or leave it, where you want to be able to suspend",
    needs: ["sleep"],
    uses: ["engine", "toolkit"],
    judge({ sleep, engine, toolkit }) {
      if (sleep.open.length === 0) return ok("systemd's sleep targets are masked");
      const reasons = whySleep(sleep);
      if (reasons.length === 0) return ok("nothing puts it to sleep by itself");
      return warning(
        list(reasons),
        [command("systemctl", "mask", ...sleep.open), advice('"systemctl unmask" with the same names takes it back')],
        whereReloadIsSafe("named", { engine, toolkit }),
      );
    },
  }),
  check({
    id: "memory",
    title: "There is memory left",
    looks: "memory available, swap, and how long something waited for memory ([pressure.md](pressure.md))",
    why: "a machine that swaps is slow for its owner first; under pressure the node gives work back",
    mends: "end what takes it, or keep more of it back: `policy.reserve.memory_mib`",
    needs: ["memory", "config"],
    judge({ memory: { totalMiB, availableMiB, swapTotalMiB, swapFreeMiB, stallPercent = 0 }, config: { config } }) {
      const found = `${size(availableMiB)} of ${size(totalMiB)} are available`;
      const limit = config.pressure.hostMemory.stallPercent;
      if (stallPercent >= limit)
        return warning(`something waited for memory ${Math.round(stallPercent)} % of the last ten seconds; ${found}`);
      if ((availableMiB / totalMiB) * 100 < MEMORY_LEAST_PERCENT) return warning(`only ${found}`);
      const reserveMiB = config.policy.reserve.memoryMiB;
      if (reserveMiB > 0 && availableMiB < reserveMiB) {
        return warning(`${found}, and policy.reserve.memory_mib keeps ${size(reserveMiB)} back: no work fits`);
      }
      if (swapTotalMiB > 0 && (swapFreeMiB / swapTotalMiB) * 100 < SWAP_LEAST_PERCENT) {
        return note(`${found}, and the swap is nearly full (${size(swapFreeMiB)} of ${size(swapTotalMiB)} left)`);
      }
      return ok(found);
    },
  }),
  check({
    id: "oom-score",
    title: "The daemon is not the first to go",
    looks: "`oom_score_adj` of the running daemon",
    why: "where memory runs out the kernel ends the process with the most points; workloads have 500 and more, so that they go first",
    mends: "`OOMScoreAdjust=0` for the service, or whatever starts the daemon",
    needs: ["daemon"],
    judge({ daemon }) {
      if (daemon.state !== "running") return skipped("the daemon does not run");
      const { oomScoreAdj: points } = daemon;
      if (points === undefined) return skipped("it cannot be read");
      if (points <= OOM_POINTS_MOST) return ok(`it has ${points} points`);
      return warning(`it has ${points} points, nearly as many as its workloads`, [
        advice('set OOMScoreAdjust=0 with "systemctl edit gpunode", and restart it'),
      ]);
    },
  }),
];

function isBelow(version: string, [major, minor]: readonly [number, number]): boolean {
  const [, has, hasMinor] = /^(\d+)\.(\d+)/.exec(version) ?? [];
  if (has === undefined) return false;
  return Number(has) < major || (Number(has) === major && Number(hasMinor) < minor);
}

const SLEEPS = new Set(["suspend", "hibernate", "hybrid-sleep", "suspend-then-hibernate", "sleep"]);

function whySleep({ hasLid, lidSwitch, lidSwitchExternalPower, idleAction, hasDesktop }: SleepFacts): string[] {
  const lid = hasLid && (SLEEPS.has(lidSwitch) || SLEEPS.has(lidSwitchExternalPower));
  return [
    ...(lid ? ["closing the lid puts it to sleep"] : []),
    ...(SLEEPS.has(idleAction) ? [`logind's IdleAction is ${idleAction}`] : []),
    ...(hasDesktop ? ["a desktop is installed, and desktops put an idle machine to sleep"] : []),
  ];
}
