import type { Config } from "./config.ts";
import type { KeyName } from "./keys.ts";
import { type Setting, valueInWords } from "./load.ts";

/** The machine whose policy is explained. */
export interface Machine {
  cpus: number;
  memoryMiB: number;
}

/** One rule of what a workload may do here. */
export interface RuleInWords {
  rule: KeyName;
  value: unknown;
  /** `default`, or where it was set. */
  source: string;
  means: string;
}

type Policy = Config["policy"];

/** What a rule means with the value it has; each key of `[policy]` that a workload feels has a line here. */
const MEANINGS: readonly [KeyName, (policy: Policy, machine: Machine) => string][] = [
  ["policy.images", ({ images }) => imagesInWords(images)],
  [
    "policy.digest_only",
    ({ digestOnly }) =>
      digestOnly
        ? "only images named by their digest"
        : "a tag will do; which image it was is in every event, by digest",
  ],
  [
    "policy.cosign_keys",
    ({ cosignKeys }) =>
      cosignKeys.length === 0 ? "signatures are not looked at" : "only images with a signature by one of these keys",
  ],
  [
    "policy.max_workloads",
    ({ maxWorkloads }) => (maxWorkloads === undefined ? "any number at a time" : `at most ${maxWorkloads} at a time`),
  ],
  ["policy.allow_root", ({ allowRoot }) => rootInWords(allowRoot)],
  [
    "policy.userns",
    ({ userns }) =>
      userns === "require"
        ? "nothing runs unless the engine maps root inside to an ordinary user of this machine"
        : "the engine may map root inside to an ordinary user, or not",
  ],
  [
    "policy.runtime",
    ({ runtime }) =>
      runtime === undefined ? "the engine's own runtime" : `every container under ${runtime}; nothing runs without it`,
  ],
  [
    "policy.read_only_root",
    ({ readOnlyRoot }) =>
      readOnlyRoot
        ? "each file system is read-only but for volumes and /tmp"
        : "a workload may write to its own file system",
  ],
  [
    "policy.allow_caches",
    ({ allowCaches }) =>
      allowCaches ? "volumes may be kept for the owner's next workload" : "no volume outlives its workload",
  ],
  ["policy.max.cpus", ({ max, reserve }, { cpus }) => upTo("CPUs", Math.max(0, cpus - reserve.cpus), max.cpus)],
  ["policy.reserve.cpus", ({ reserve }, { cpus }) => `${reserve.cpus} of ${cpus} CPUs are never lent`],
  [
    "policy.max.memory_mib",
    ({ max, reserve }, { memoryMiB }) => {
      const lent = Math.max(0, memoryMiB - reserve.memoryMiB);
      return `${upTo("MiB of memory", lent, max.memoryMiB)}; who names none gets ${Math.min(lent, Math.floor(memoryMiB * 0.9), max.memoryMiB ?? lent)} MiB, and goes first where memory runs out`;
    },
  ],
  [
    "policy.reserve.memory_mib",
    ({ reserve }, { memoryMiB }) => `${reserve.memoryMiB} of ${memoryMiB} MiB are never lent`,
  ],
  [
    "policy.max.shm_mib",
    ({ max }) =>
      `/dev/shm ${max.shmMiB === undefined ? "as asked" : `up to ${max.shmMiB} MiB`}, else half of its memory, as which it counts`,
  ],
  [
    "policy.max.disk_mib",
    ({ max }) =>
      `${max.diskMiB === undefined ? "any free disk that is lent" : `up to ${max.diskMiB} MiB`}; who names none gets half of what is free${max.diskMiB === undefined ? "" : ", if that is less"}; who writes more is ended`,
  ],
  ["policy.reserve.disk_mib", ({ reserve }) => `${reserve.diskMiB} MiB of disk are kept free`],
  [
    "policy.max.pids",
    ({ max }) =>
      `${max.pids === undefined ? "any number of processes" : `up to ${max.pids} processes`}; ${Math.min(4096, max.pids ?? 4096)} where none is named`,
  ],
  [
    "policy.max.run_seconds",
    ({ max }) =>
      max.runSeconds === undefined ? "no limit of its run time but its own" : `ended after ${max.runSeconds} s`,
  ],
  [
    "policy.max.ports",
    ({ max }) =>
      max.ports === 0
        ? "no port is published"
        : max.ports === undefined
          ? "any number of ports of the range"
          : `up to ${max.ports} ports`,
  ],
  [
    "policy.host_ports",
    ({ hostPorts }) => `ports are published on ${hostPorts.from} to ${hostPorts.to} of this machine`,
  ],
  [
    "policy.host_ip",
    ({ hostIp }) =>
      /^127\.|^::1$/.test(hostIp) ? "and reached from this machine alone" : `and reached by whoever reaches ${hostIp}`,
  ],
];

/** The policy in force, rule by rule. `settings` are those that `config` was made from. */
export function policyInWords(
  { config, settings }: { config: Config; settings: readonly Setting[] },
  machine: Machine,
): RuleInWords[] {
  return MEANINGS.map(([rule, means]) => {
    const setting = settings.find(({ key }) => key === rule);
    return {
      rule,
      value: setting?.value,
      source: setting?.source ?? "default",
      means: means(config.policy, machine),
    };
  });
}

/** A rule's value as a person reads it. */
export function ruleValue({ value }: RuleInWords): string {
  return value === undefined ? "not set" : valueInWords(value);
}

function imagesInWords(images: readonly string[]): string {
  if (images.length === 0) return "no image may run";
  return images.includes("*") ? "any image of any registry" : "these and no others";
}

function rootInWords(allowRoot: boolean | undefined): string {
  if (allowRoot === undefined) return "root inside only where the engine maps it to an ordinary user of this machine";
  return allowRoot
    ? "may be root inside its container, with few capabilities and none to gain"
    : "never root, not even inside";
}

function upTo(unit: string, lent: number, cap: number | undefined): string {
  return `up to ${Math.min(lent, cap ?? lent)} ${unit}`;
}
