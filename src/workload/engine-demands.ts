import type { EngineInfo, Problem } from "../protocol/agent-frames.ts";

/** What the owner's policy asks of the engine. */
export interface EnginePolicy {
  runtime?: string;
  /** `require`: nothing runs unless root inside is an ordinary user outside. */
  userns?: "require";
}

/** True where root in a container is an ordinary user of the machine: the engine remaps users, or runs without root itself. */
export function mapsRoot({ security = [] }: EngineInfo): boolean {
  return security.includes("userns") || security.includes("rootless");
}

interface Demand {
  code: string;
  isUnmet(engine: EngineInfo, policy: EnginePolicy): boolean;
  says(engine: EngineInfo, policy: EnginePolicy): string;
}

/** What of it a stranger's container is never without. `security` and `limits` are absent where the engine has not told. */
const DEMANDS: readonly Demand[] = [
  {
    code: "no_seccomp",
    isUnmet: ({ security }) => security !== undefined && !security.includes("seccomp"),
    says: () =>
      'the container engine filters no system calls (seccomp is missing or switched off): remove "seccomp-profile" from its daemon.json, or use a kernel with CONFIG_SECCOMP_FILTER',
  },
  {
    code: "no_limits",
    isUnmet: ({ limits }) => limits !== undefined && missingLimits(limits).length > 0,
    says: ({ limits = [] }) =>
      `the container engine cannot limit ${missingLimits(limits).join(" and ")} of a container: ${
        limits.includes("memory")
          ? "it needs those cgroup controllers"
          : "the kernel may need cgroup_enable=memory on its command line, a rootless engine delegated cgroups"
      }`,
  },
  {
    code: "runtime_missing",
    isUnmet: ({ runtimes }, { runtime }) => runtime !== undefined && runtimes?.includes(runtime) === false,
    says: ({ runtimes = [] }, { runtime }) =>
      `policy.runtime is "${runtime}" and the container engine has ${runtimes.join(", ")}: install it and name it in the engine's daemon.json, or change the rule`,
  },
  {
    code: "userns_missing",
    isUnmet: (engine, { userns }) => userns === "require" && engine.security !== undefined && !mapsRoot(engine),
    says: () =>
      'policy.userns is "require" and root in a container is root on this machine: set "userns-remap": "default" in the engine\'s daemon.json, or run Docker rootless',
  },
];

function missingLimits(limits: readonly string[]): string[] {
  return ["cpu", "memory", "pids"].filter((limit) => !limits.includes(limit));
}

/**
 * What an engine lacks that keeps every workload from this node; empty where it is away, which is said elsewhere. `code` is stable, `message` names
 * the rule where it is the owner's.
 */
export function engineLacks(engine: EngineInfo, policy: EnginePolicy): Problem[] {
  if (!engine.available) return [];
  return DEMANDS.filter(({ isUnmet }) => isUnmet(engine, policy)).map(({ code, says }) => ({
    code,
    message: says(engine, policy),
  }));
}
