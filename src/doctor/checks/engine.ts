import { engineLacks } from "../../workload/engine-demands.ts";
import { advice, type Check, check, command, failure, note, ok, type Step, skipped, warning } from "../check.ts";
import type { EngineFacts } from "../facts.ts";
import { dockerSteps, installs } from "../remedies.ts";
import { mayUse } from "../users.ts";
import { list } from "../words.ts";

const AWAY = "the container engine does not answer";
/** What the engine room is written for: Docker 20.10. */
const API_MINOR_LEAST = 41;
const RESTART_DOCKER = command("systemctl", "restart", "docker");

/** The container engine: whether it answers, whom, and what it can. */
export const ENGINE_CHECKS: readonly Check[] = [
  check({
    id: "engine",
    title: "The container engine answers",
    looks: "`docker.socket`, and whether `/etc/docker/daemon.json` can be read",
    why: "without it nothing can run here",
    mends: "install Docker Engine, start it, or mend its configuration",
    needs: ["engine", "system"],
    judge({ engine, system }) {
      const { about, problem = AWAY, daemonJsonProblem, program, socket, look } = engine;
      if (about !== undefined) {
        return ok(`${about.product} ${about.info.version ?? ""} at ${socket}`);
      }
      if (daemonJsonProblem !== undefined) {
        return failure(`${problem}; /etc/docker/daemon.json is no JSON (${daemonJsonProblem})`, [
          advice("mend /etc/docker/daemon.json"),
          RESTART_DOCKER,
        ]);
      }
      if (look !== undefined && /EACCES|permission|may not/i.test(problem) && !system.isRoot) {
        return skipped(`${problem}: run it with sudo`);
      }
      if (program === undefined && look === undefined) {
        return failure(`Docker is not installed: there is no ${socket}`, dockerSteps(system));
      }
      return failure(problem, [
        command("systemctl", "enable", "--now", "docker"),
        command("journalctl", "-u", "docker", "-n", "50", "--no-pager"),
      ]);
    },
  }),
  check({
    id: "engine-access",
    title: "The daemon's user may use the engine",
    looks: "owner, group and mode of the engine's socket, and the groups of the user the daemon runs as",
    why: "the daemon is no root user: only the socket's group lets it in",
    mends: "make the user a member of the socket's group, and restart the service",
    needs: ["engine", "service"],
    judge({ engine: { look, socket, group }, service: { user, unit } }) {
      if (look === undefined) return skipped(`there is no ${socket}`);
      if (mayUse(user, look, "write")) return ok(`${user.name} may use ${socket}`);
      const mode = look.mode.toString(8).padStart(4, "0");
      const found = `${user.name} may not use ${socket} (group ${group ?? look.gid}, mode ${mode})`;
      if (look.gid === 0 || group === undefined || (look.mode & 0o060) !== 0o060) {
        return failure(found, [
          advice("the socket is to belong to the group docker with mode 0660, as Docker's own packages have it"),
          command("groupadd", "--force", "docker"),
          command("systemctl", "restart", "docker.socket", "docker"),
        ]);
      }
      return failure(
        found,
        [
          command("usermod", "-aG", group, user.name),
          ...(unit === undefined ? [advice("then log in again")] : [command("systemctl", "try-restart", "gpunode")]),
        ],
        // Who is in the group is as good as root: that is given to the service's own user, not to a person.
        unit === undefined ? undefined : "safe",
      );
    },
  }),
  check({
    id: "engine-version",
    title: "The engine is one that works",
    looks: "product and API version of the engine",
    why: "before API 1.41 (Docker 20.10) what gpunode needs is missing; Podman's Docker API forgets GPU requests without a word",
    mends: "Docker Engine 20.10 or newer",
    needs: ["engine", "system"],
    judge({ engine: { about }, system }) {
      if (about === undefined) return skipped(AWAY);
      if (about.product.startsWith("Podman")) {
        return failure(`it is Podman ${about.info.version ?? ""}, which ignores GPU requests`, dockerSteps(system));
      }
      const minor = Number(/^1\.(\d+)/.exec(about.info.apiVersion ?? "")?.[1] ?? 0);
      if (minor < API_MINOR_LEAST) {
        return failure(
          `Docker ${about.info.version ?? ""} speaks API ${about.info.apiVersion ?? "?"}, 1.${API_MINOR_LEAST} is the least`,
          dockerSteps(system),
        );
      }
      return ok(`API ${about.info.apiVersion ?? ""}`);
    },
  }),
  check({
    id: "engine-demands",
    title: "The engine keeps containers in bounds",
    looks:
      "seccomp, limits of memory, CPU and processes, and the runtime and user namespaces your policy asks for ([security.md](security.md))",
    why: "where one is missing gpunode refuses all work",
    mends: "what the sentence names, mostly in Docker's daemon.json",
    needs: ["engine", "config", "system"],
    judge({ engine: { about }, config: { config }, system }) {
      if (about === undefined) return skipped(AWAY);
      const { runtime, userns } = config.policy;
      const policy = { ...(runtime !== undefined && { runtime }), ...(userns === "require" && { userns }) };
      const lacks = engineLacks(about.info, policy);
      const has = (code: string) => lacks.some((lack) => lack.code === code);
      if (lacks.length > 0) {
        const steps: Step[] = [
          ...(has("runtime_missing") && runtime === "runsc"
            ? [installs(system, "runsc"), command("runsc", "install")]
            : []),
          ...(has("userns_missing")
            ? [advice('put "userns-remap": "default" into /etc/docker/daemon.json (images are pulled anew)')]
            : []),
          RESTART_DOCKER,
        ];
        return failure(lacks.map(({ message }) => message).join("; "), steps);
      }
      const asked = [
        ...(runtime === undefined ? [] : [`runtime ${runtime}`]),
        ...(userns === "require" ? ["user namespaces"] : []),
      ];
      return ok(`seccomp, limits of cpu, memory and pids${asked.length > 0 ? `, ${list(asked)}` : ""}`);
    },
  }),
  check({
    id: "cgroups",
    title: "Control groups are of version 2",
    looks: "the engine's cgroup version and driver",
    why: "version 1 is on its way out of systemd and Docker, and tells no memory pressure of a container",
    mends: "boot with `systemd.unified_cgroup_hierarchy=1`, or a newer release of the distribution",
    needs: ["engine"],
    judge({ engine: { about } }) {
      if (about === undefined) return skipped(AWAY);
      const version = about.info.cgroupVersion;
      const found = `version ${version ?? "unknown"}, driver ${about.cgroupDriver ?? "unknown"}`;
      if (version !== "1") return ok(found);
      return note(`control groups are of ${found}`, [
        advice(
          'add "systemd.unified_cgroup_hierarchy=1" to GRUB_CMDLINE_LINUX in /etc/default/grub, update GRUB, reboot',
        ),
      ]);
    },
  }),
  check({
    id: "live-restore",
    title: "Work outlives a restart of the engine",
    looks: "`live-restore` of the engine",
    why: "an upgrade of Docker, also one that happens by itself at night, ends all running work",
    mends: '`"live-restore": true` in daemon.json, and `systemctl reload docker`',
    needs: ["engine"],
    judge({ engine: { about } }) {
      if (about === undefined) return skipped(AWAY);
      if (about.liveRestore) return ok("live-restore is on");
      return note("live-restore is off: whatever restarts Docker ends the work", [
        advice('put "live-restore": true into /etc/docker/daemon.json'),
        command("systemctl", "reload", "docker"),
      ]);
    },
  }),
  check({
    id: "storage-driver",
    title: "The engine's storage is a fast one",
    looks: "the engine's storage driver",
    why: "vfs copies the whole image for each container: minutes and gigabytes for one start",
    mends: "overlay2 on ext4 or xfs; images are pulled anew",
    needs: ["engine"],
    judge({ engine: { about } }) {
      const driver = about?.info.storageDriver;
      if (about === undefined || driver === undefined)
        return skipped(about === undefined ? AWAY : "the engine does not tell");
      if (SLOW_DRIVERS.has(driver)) {
        return warning(`the storage driver is ${driver}`, [
          advice(
            'set "storage-driver": "overlay2" in /etc/docker/daemon.json (images are pulled anew, running work ends)',
          ),
          RESTART_DOCKER,
        ]);
      }
      return ok(driver);
    },
  }),
  check({
    id: "disk-limits",
    title: "The disk a workload may fill is held",
    looks:
      "whether the storage driver can hold a container to a size: overlay2 on xfs mounted with `pquota`, btrfs, zfs",
    why: "elsewhere a workload's disk is watched every ten seconds and ended when it has more than its share; a fast one writes much in ten seconds",
    mends: "put the engine's data on xfs mounted with `pquota`",
    needs: ["engine"],
    uses: ["disk"],
    judge({ engine, disk }) {
      const { about } = engine;
      if (about === undefined) return skipped(AWAY);
      if (about.mayHoldDisk && !lacksQuota(engine, "images" in disk ? disk.images : undefined)) {
        return ok(`${about.info.storageDriver ?? "it"} holds containers to their size`);
      }
      const on = about.backingFileSystem === undefined ? "" : ` on ${about.backingFileSystem}`;
      return note(
        `${about.info.storageDriver ?? "the storage driver"}${on} cannot hold a container to a size: disk is watched, not held`,
        [
          advice(
            `where that matters: put ${about.dataRoot ?? "Docker's data"} on an xfs file system mounted with "pquota"`,
          ),
        ],
      );
    },
  }),
];

/** Docker's "Storage drivers": those it calls deprecated or for tests. */
const SLOW_DRIVERS = new Set(["vfs", "devicemapper", "aufs"]);

/** xfs has quotas, and holds to them only where it was mounted so. */
function lacksQuota(
  { about }: EngineFacts,
  images: { fileSystem?: string; mountOptions: readonly string[] } | undefined,
): boolean {
  if (about?.info.storageDriver !== "overlay2" || images?.fileSystem !== "xfs") return false;
  return !images.mountOptions.some((option) => option === "prjquota" || option === "pquota");
}
