import { advice, type Check, check, command, failure, note, ok, type Step, skipped, warning } from "../check.ts";
import type { ConfigFacts, ServiceFacts } from "../facts.ts";
import { whereReloadIsSafe } from "../trap.ts";
import { mayUse } from "../users.ts";
import { list } from "../words.ts";

/** What the running daemon says that has a check of its own. */
const TOLD_ELSEWHERE = new Set([
  ...["network_isolation", "engine_unavailable", "kernel_log_unreadable", "page_unavailable"],
  ...["no_seccomp", "no_limits", "runtime_missing", "userns_missing"],
  ...["not_found", "no_driver", "no_library", "no_devices", "driver_mismatch", "gpu_lost", "timeout"],
]);
const LOG = command("journalctl", "-u", "gpunode", "-n", "50", "--no-pager");

/** gpunode itself. */
export const OWN_CHECKS: readonly Check[] = [
  check({
    id: "config",
    title: "The configuration is right",
    looks:
      "the configuration as `gpunode config check` reads it, and whether the daemon's user may read it and the files it names",
    why: "with a wrong one the daemon does not start (exit code 78), and systemd does not try again",
    mends: "what each line says; `chgrp` and `chmod` where the daemon may not read a file",
    needs: ["config", "service"],
    judge({ config: { problems, isClosed, warnings, file, files }, service }) {
      if (isClosed) return skipped(`${list(problems)}: run it with sudo`);
      if (problems.length > 0)
        return failure(problems.join("; "), [
          advice("mend it; the other checks went by the defaults"),
          command("gpunode", "config", "check"),
        ]);
      const missing = files.filter(({ look }) => look === undefined);
      if (missing.length > 0) {
        return failure(list(missing.map(({ key, path }) => `${key} names ${path}, which is not there`)));
      }
      const closed = files.filter(({ look }) => look !== undefined && !mayUse(service.user, look, "read"));
      if (closed.length > 0) return failure(...closedTo(service, closed));
      if (warnings.length > 0) return warning(warnings.join("; "));
      return ok(file ?? "no file; the defaults and the environment");
    },
  }),
  check({
    id: "service",
    title: "The service is installed and starts at boot",
    looks: "the unit gpunode.service: there, enabled, of this version, and how it fares",
    why: "after a reboot nobody starts it, and nothing is lent",
    mends: "`gpunode service install`, or `systemctl enable --now gpunode`",
    needs: ["service", "system"],
    uses: ["engine", "toolkit"],
    judge({ service: { unit }, system, engine, toolkit }) {
      const auto = whereReloadIsSafe("safe", { engine, toolkit });
      if (!system.hasSystemd) return skipped("no systemd runs here");
      if (unit === undefined)
        return note("the service is not installed: the daemon runs only where somebody starts it", [
          command("gpunode", "service", "install"),
        ]);
      const { fileState, activeState, result, needsReload, isCurrent, restarts = 0 } = unit;
      if (fileState === "masked")
        return failure("the service is masked", [
          command("systemctl", "unmask", "gpunode"),
          command("systemctl", "enable", "--now", "gpunode"),
        ]);
      if (activeState === "failed") {
        const why =
          result === "start-limit-hit"
            ? "the service failed too often, and systemd has given up"
            : `the service has failed (${result ?? "unknown"})`;
        return failure(why, [
          LOG,
          command("systemctl", "reset-failed", "gpunode"),
          command("systemctl", "restart", "gpunode"),
        ]);
      }
      if (fileState === "disabled")
        return warning("the service does not start at boot", [command("systemctl", "enable", "gpunode")], auto);
      if (needsReload === true) {
        return warning(
          "the unit was changed, and systemd knows the old one",
          [command("systemctl", "daemon-reload")],
          auto,
        );
      }
      if (!isCurrent)
        return note("the unit is not the one this gpunode installs", [command("gpunode", "service", "install")]);
      if (restarts > 0)
        return note(`the service is ${activeState ?? "there"}, and systemd had to start it again ${restarts} ×`, [LOG]);
      return ok(`${fileState ?? "installed"}, ${activeState ?? "state unknown"}`);
    },
  }),
  check({
    id: "daemon",
    title: "The daemon runs, and has nothing to complain about",
    looks: "the daemon's own word of what keeps it from being all it could be (`gpunode status`)",
    why: "what does not run lends nothing",
    mends: "`systemctl start gpunode`; what each sentence says",
    needs: ["daemon", "service"],
    judge({ daemon, service: { unit } }) {
      if (daemon.state === "closed") return skipped(daemon.message);
      if (daemon.state === "silent") return failure(daemon.message, [LOG, command("systemctl", "restart", "gpunode")]);
      if (daemon.state === "away") {
        if (unit === undefined)
          return warning("the daemon does not run", [advice('start it with "gpunode run", or install the service')]);
        return failure("the daemon does not run, though its service is installed", [
          command("systemctl", "start", "gpunode"),
          LOG,
        ]);
      }
      const { snapshot } = daemon;
      const problems = snapshot.problems.filter(({ code }) => !TOLD_ELSEWHERE.has(code));
      if (problems.length > 0) return warning(problems.map(({ message }) => message).join("; "));
      const held = snapshot.holds.map(
        ({ message, until }) => `${message}${until === undefined ? "" : ` until ${until}`}`,
      );
      const doing = snapshot.workloads.filter(({ state }) => state === "running").length;
      const found = `gpunode ${snapshot.node.version} is ${snapshot.node.state}, ${doing} ${doing === 1 ? "workload runs" : "workloads run"}`;
      return held.length === 0 ? ok(found) : note(`${found}; not all is lent: ${list(held)}`);
    },
  }),
];

/** What the daemon may not read, and the way to let it in and nobody else. */
function closedTo({ user, unit }: ServiceFacts, files: ConfigFacts["files"]): [string, Step[], "safe"?] {
  const found = `${user.name}, as whom the daemon runs, may not read ${list(files.map(({ path }) => path))}`;
  const steps = files.flatMap(({ path }) => [command("chgrp", user.name, path), command("chmod", "g+r,o-rwx", path)]);
  // A file of another service's is not taken from it: only what lies with gpunode's own.
  const isOwn = unit !== undefined && files.every(({ path }) => path.startsWith("/etc/gpunode/"));
  return isOwn ? [found, steps, "safe"] : [found, steps];
}
