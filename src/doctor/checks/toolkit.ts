import { advice, type Check, check, command, failure, had, ok, type Step, skipped, warning } from "../check.ts";
import type { CdiSpec, GpuFacts, ToolkitFacts } from "../facts.ts";
import { toolkitSteps } from "../remedies.ts";
import { reloadTakesGpus, servesByCdi } from "../trap.ts";
import { list } from "../words.ts";

const AWAY = "the container engine does not answer";
const SIMULATED = "the GPUs are simulated";
const RESTART_DOCKER = command("systemctl", "restart", "docker");
const RULE = "/etc/udev/rules.d/71-nvidia-dev-char.rules";

/** How GPUs get into containers. */
export const TOOLKIT_CHECKS: readonly Check[] = [
  check({
    id: "gpu-runtime",
    title: "The engine can give GPUs to containers",
    looks: "NVIDIA's container toolkit, its configuration, and when Docker was started",
    why: "without it every workload with a GPU fails at its start",
    mends: "install nvidia-container-toolkit, and restart Docker",
    needs: ["toolkit", "engine", "gpus", "system"],
    judge({ toolkit, engine, gpus, system }) {
      if (gpus.simulated) return skipped(SIMULATED);
      const { about } = engine;
      if (about === undefined) return skipped(AWAY);
      const byCdi = servesByCdi(engine, toolkit);
      if (toolkit.hook === undefined && !byCdi) {
        if (toolkit.ctk === undefined && toolkit.cdiHook === undefined) {
          return failure("NVIDIA's container toolkit is not installed", toolkitSteps(system, toolkit));
        }
        return failure(
          `nvidia-container-runtime-hook is missing, by which Docker ${about.info.version ?? ""} gives GPUs: only a part of the toolkit is installed`,
          toolkitSteps(system, toolkit),
        );
      }
      const problem = byCdi ? undefined : configurationProblem(toolkit, about.info.security ?? []);
      if (problem !== undefined) return problem;
      const isKnown = about.info.runtimes?.includes("nvidia") === true;
      if (!byCdi && !isKnown && (toolkit.hookChangedAtMs ?? 0) > (engine.startedAtMs ?? Number.POSITIVE_INFINITY)) {
        return warning("the toolkit was installed after Docker was started, which looks for it only then", [
          RESTART_DOCKER,
        ]);
      }
      return ok(byCdi ? "by CDI" : `by the toolkit's hook${isKnown ? ", and a runtime nvidia" : ""}`);
    },
  }),
  check({
    id: "cdi-spec",
    title: "CDI specifications are of this driver",
    looks: "the libraries that `/etc/cdi` and `/var/run/cdi` name, and the driver's version",
    why: "a specification of the driver before names files that are gone: containers by CDI do not start",
    mends: "`nvidia-ctk cdi generate`",
    needs: ["toolkit", "gpus"],
    uses: ["engine"],
    judge({ toolkit, gpus, engine }) {
      if (gpus.simulated) return skipped(SIMULATED);
      const { inventory } = gpus;
      const version = inventory.driverVersion;
      if (toolkit.specs.length === 0) {
        return toolkit.hook === undefined
          ? skipped("there are none")
          : ok("there are none; the toolkit's hook needs none");
      }
      if (version === undefined) return skipped("the driver does not answer");
      const stale = toolkit.specs.filter(({ versions }) => versions.length > 0 && !versions.includes(version));
      const short = toolkit.specs.filter((spec) => !stale.includes(spec) && lacksGpus(spec, gpus));
      if (stale.length === 0 && short.length === 0)
        return ok(`${list(toolkit.specs.map(({ path }) => path))}: driver ${version}`);
      const found = [
        ...stale.map(({ path, versions }) => `${path} is of driver ${list(versions)}, this one is ${version}`),
        ...short.map(
          ({ path, devices }) =>
            `${path} lists ${devices.length === 0 ? "no GPU" : list(devices)}, not all ${inventory.gpus.length} GPUs`,
        ),
      ].join("; ");
      const about = had(engine);
      const isUsed = about !== undefined && servesByCdi(about, toolkit);
      const steps =
        toolkit.ctk === undefined
          ? [advice("remove the file, or install nvidia-container-toolkit to make it anew")]
          : regenerate(toolkit, [...stale, ...short]);
      return (isUsed ? failure : warning)(found, steps, toolkit.ctk === undefined ? undefined : "safe");
    },
  }),
  check({
    id: "daemon-reload",
    title: "Containers keep their GPUs over a daemon-reload",
    looks: "the engine's cgroup driver, and links to `/dev/nvidia…` in `/dev/char`",
    why: 'with systemd\'s cgroups any "systemctl daemon-reload", as every package upgrade does, takes the GPUs away from running containers ("Failed to initialize NVML: Unknown Error")',
    mends: "`nvidia-ctk system create-dev-char-symlinks --create-all`, at each boot",
    needs: ["toolkit", "engine", "gpus"],
    judge({ toolkit, engine, gpus }) {
      if (gpus.simulated) return skipped(SIMULATED);
      if (engine.about === undefined) return skipped(AWAY);
      if (gpus.inventory.gpus.length === 0) return skipped("no GPU answers");
      const driver = engine.about.cgroupDriver;
      if (driver !== "systemd") return ok(`the cgroup driver is ${driver ?? "not systemd"}`);
      if (servesByCdi(engine, toolkit)) return ok("GPUs come by CDI, which tells the cgroup of them");
      if (!reloadTakesGpus(engine, toolkit)) return ok("all have their link in /dev/char");
      const found = `the cgroup driver is systemd, and ${list(toolkit.unlinked)} ${toolkit.unlinked.length === 1 ? "has" : "have"} no link in /dev/char`;
      if (toolkit.ctk === undefined) {
        return warning(found, [
          advice('put "exec-opts": ["native.cgroupdriver=cgroupfs"] into /etc/docker/daemon.json (running work ends)'),
          RESTART_DOCKER,
        ]);
      }
      const make = [toolkit.ctk, "system", "create-dev-char-symlinks", "--create-all"];
      const rule = `# Written by gpunode doctor: systemd keeps a container's GPUs only where /dev/char leads to them.\nACTION=="add", DEVPATH=="/bus/pci/drivers/nvidia", RUN+="${make.join(" ")}"\n`;
      return warning(found, [command(...make), { kind: "write", path: RULE, text: rule, mode: 0o644 }], "safe");
    },
  }),
  check({
    id: "gpu-in-container",
    title: "A container sees its GPU",
    looks:
      "a test container with one GPU: its device files, and `nvidia-smi -L` inside. Its image is made of this machine's own Node, nothing is pulled",
    why: "all else may look right, and only this shows it",
    mends: "what the engine or nvidia-smi said; mostly the toolkit is missing, or Docker was not restarted",
    needs: ["sight", "gpus", "system"],
    uses: ["toolkit"],
    judge({ sight: { gpu, seen, devices, said, problem }, gpus, system, toolkit }) {
      const steps: readonly Step[] = gpus.simulated
        ? []
        : stepsOfSight(problem ?? said ?? "", toolkitSteps(system, had(toolkit) ?? { hasSource: false }));
      if (problem !== undefined) return failure(`it could not be started with ${gpu}: ${problem}`, steps);
      if (seen.includes(gpu)) return ok(seen.length === 1 ? `it sees ${gpu}, and no other` : `it sees ${list(seen)}`);
      if (seen.length > 0) return failure(`it was given ${gpu} and sees ${list(seen)}`, steps);
      if (devices.length > 0 && /ENOENT/.test(said ?? "")) {
        return warning(
          `its device files are there (${list(devices)}), nvidia-smi is not: the toolkit brought no programs along`,
        );
      }
      const nothing = devices.length === 0 ? "there is no /dev/nvidia… inside" : `there are ${list(devices)}`;
      return failure(
        `it was given ${gpu} and sees no GPU: ${nothing}, and nvidia-smi said: ${said ?? "nothing"}`,
        steps,
      );
    },
  }),
];

function configurationProblem({ mode, noCgroups }: ToolkitFacts, security: readonly string[]) {
  if (mode === "cdi") {
    return failure(
      'mode = "cdi" in /etc/nvidia-container-runtime/config.toml: the toolkit then refuses the way Docker asks for GPUs',
      [command("nvidia-ctk", "config", "--in-place", "--set", "nvidia-container-runtime.mode=auto")],
    );
  }
  // A rootless engine cannot set them and needs it so.
  if (noCgroups && !security.includes("rootless")) {
    return failure(
      "no-cgroups = true in /etc/nvidia-container-runtime/config.toml: containers get the GPUs' files, and may not open them",
      [command("nvidia-ctk", "config", "--in-place", "--set", "nvidia-container-cli.no-cgroups=false")],
    );
  }
  return undefined;
}

/** True where a specification names GPUs one by one, and not all. */
function lacksGpus({ devices }: CdiSpec, { inventory: { gpus } }: GpuFacts): boolean {
  const whole = gpus.filter(({ mig }) => mig?.enabled !== true);
  return (
    devices.length > 0 && !whole.every(({ index, uuid }) => devices.includes(String(index)) || devices.includes(uuid))
  );
}

function regenerate({ hasRefresh, ctk }: ToolkitFacts, specs: readonly CdiSpec[]): Step[] {
  return specs.map(({ path }) =>
    // What the toolkit's own service keeps, it makes.
    hasRefresh && path.startsWith("/var/run/")
      ? command("systemctl", "restart", "nvidia-cdi-refresh.service")
      : command(ctk ?? "nvidia-ctk", "cdi", "generate", `--output=${path}`),
  );
}

function stepsOfSight(words: string, install: readonly Step[]): readonly Step[] {
  if (/toolkit is missing|could not select device driver/i.test(words)) return install;
  if (/version mismatch/i.test(words)) return [command("reboot")];
  if (/Unknown Error/i.test(words)) return [RESTART_DOCKER];
  return [command("nvidia-ctk", "runtime", "configure", "--runtime=docker"), RESTART_DOCKER];
}
