import { defaulted, type Key, key, onOff, optional } from "./key.ts";
import type { Kind } from "./kinds.ts";
import * as kinds from "./kinds.ts";

/** The most that one workload may have; without it the machine is the limit. */
function most(kind: Kind<number>, description: string): Key<number | undefined> {
  return optional({ kind, description: `The most: ${description}` });
}

/** Keys of what a workload may do here. `policy-in-words.ts` says of each what it means. */
export const POLICY_KEYS = {
  "policy.images": defaulted<readonly string[]>(["*"], {
    kind: kinds.textList(),
    description:
      'Images that may run: a registry `"ghcr.io"`, a repository `"ghcr.io/me/app"`, one tag of it `"ghcr.io/me/app:1"`; `*` stands for any run of characters: `"ghcr.io/me/*"`. Names without a registry are Docker Hub\'s: `"alpine"` is `docker.io/library/alpine`.',
  }),
  "policy.digest_only": onOff(
    false,
    "Whether images must be named by their digest (`repo@sha256:…`), which no registry can make into another image.",
  ),
  "policy.max_workloads": optional({
    kind: kinds.integer({ min: 0, max: 1000 }),
    description: "At most so many workloads at a time.",
  }),
  "policy.host_ports": key({
    kind: kinds.portRange(),
    description: "Ports of this machine that workloads' ports are published on.",
    fallback: () => ({ from: 30000, to: 30999 }),
    defaultText: '"30000-30999"',
  }),
  "policy.host_ip": defaulted<string>("127.0.0.1", {
    kind: kinds.ipAddress(),
    description:
      "Address those ports are published on. The default is reached from this machine only; `0.0.0.0` opens them to your network.",
  }),
  "policy.reserve.cpus": defaulted<number>(0, {
    kind: kinds.number({ min: 0, max: 4096 }),
    description: "CPU cores kept back for the owner.",
  }),
  "policy.reserve.memory_mib": defaulted<number>(0, {
    kind: kinds.integer({ min: 0, max: 67_108_864 }),
    description: "Memory in MiB kept back for the owner.",
  }),
  "policy.reserve.disk_mib": defaulted<number>(0, {
    kind: kinds.integer({ min: 0, max: 1_073_741_824 }),
    description: "Disk space in MiB kept free where images lie.",
  }),
  "policy.runtime": optional({
    kind: kinds.text({ maxLength: 64, pattern: /^[A-Za-z0-9][\w.-]*$/, expected: 'a name such as "runsc"' }),
    description: "Container runtime for all workloads, where the engine's default is not wanted.",
  }),
  "policy.userns": defaulted<"any" | "require">("any", {
    kind: kinds.oneOf("any", "require"),
    description:
      "`require`: nothing runs here unless root inside a container is an ordinary user of this machine (`userns-remap` in the engine's daemon.json, or rootless Docker).",
  }),
  "policy.allow_root": {
    ...optional({
      kind: kinds.boolean(),
      description:
        "Whether a workload may run as root inside its container. Without the key: only where that root is an ordinary user of this machine (see `policy.userns`). Many ready-made images want it.",
    }),
    defaultText: "false, unless the engine maps root to an ordinary user",
  },
  "policy.allow_caches": onOff(
    true,
    "Whether workloads may keep volumes on this machine for the next one of their owner.",
  ),
  "policy.read_only_root": onOff(
    false,
    "Whether each container's file system is read-only, asked for or not. `/tmp` is then in memory, up to 1 GiB.",
  ),
  "policy.max.cpus": most(
    kinds.number({ min: 0.01, max: 4096 }),
    "CPU cores of one workload. More asked for is refused.",
  ),
  "policy.max.memory_mib": most(kinds.integer({ min: 6, max: 67_108_864 }), "Memory of one workload in MiB."),
  "policy.max.shm_mib": most(
    kinds.integer({ min: 1, max: 67_108_864 }),
    "`/dev/shm` of one workload in MiB; it counts as memory.",
  ),
  "policy.max.disk_mib": most(
    kinds.integer({ min: 1, max: 1_073_741_824 }),
    "Disk in MiB that one workload may write: its file system, its volumes, and what its caches grow by.",
  ),
  "policy.max.pids": most(kinds.integer({ min: 1, max: 4_194_304 }), "Processes and threads of one workload."),
  "policy.max.ports": most(kinds.integer({ min: 0, max: 100 }), "Ports of one workload that are published; 0: none."),
  "policy.max.run_seconds": most(
    kinds.integer({ min: 1, max: 315_360_000 }),
    "Run time of one workload. One that names none is ended after this; one that asks for more is refused.",
  ),
  "policy.pull_no_progress_seconds": defaulted<number>(120, {
    kind: kinds.integer({ min: 5, max: 86_400 }),
    description: "A pull that has not moved for so long is given up. There is no limit on its whole length.",
  }),
};
