import * as z from "zod";
import type { PolicyCaps } from "../protocol/agent-frames.ts";
import { GpunodeError } from "../protocol/errors.ts";
import type { Workload } from "../protocol/workload.ts";

/**
 * What a workload is held to: what it asked for, or else a default. Nothing runs without a limit of each kind, so that whoever asks for
 * nothing cannot take the owner's machine down. Pure.
 */
export const Limits = z.object({
  cpus: z.number(),
  memoryMiB: z.number(),
  shmMiB: z.number(),
  pids: z.number(),
  /** What it may write: its layer, volumes of its own, and what its caches grow by. */
  diskMiB: z.number(),
  /** Absent: no limit. */
  maxRuntimeSeconds: z.number().exactOptional(),
  /** The run time is the owner's, who names it as `policy.max.run_seconds`. */
  runtimeIsCapped: z.boolean().exactOptional(),
});
export type Limits = z.infer<typeof Limits>;

/** What limits are made from. */
export interface Lendable {
  policy: {
    reserve: { cpus: number; memoryMiB: number; diskMiB: number };
    max?: PolicyCaps;
  };
  cpus: number;
  memoryMiB: number;
  /** Free space where images and layers go; undefined is unknown. */
  diskFreeMiB?: number;
}

/** Processes and threads of a container that asks for no number: a fork bomb ends there, an inference server does not. */
const PIDS_DEFAULT = 4096;
/** A workload that names no memory never gets the last of the machine's. */
const MEMORY_SHARE = 0.9;
/** With less than this hardly a shell starts. */
const MEMORY_LEAST_MIB = 64;
/** Of the free disk that is lent: two that fill theirs leave some. */
const DISK_SHARE = 0.5;
const DISK_LEAST_MIB = 64;
/** Where nobody knows what is free. */
const DISK_UNKNOWN_MIB = 10_240;
/** The engine takes no less. */
const CPUS_LEAST = 0.01;

/** CPU cores and memory that the owner lends. */
export function lent({ policy: { reserve }, cpus, memoryMiB }: Lendable): { cpus: number; memoryMiB: number } {
  return { cpus: Math.max(0, cpus - reserve.cpus), memoryMiB: Math.max(0, memoryMiB - reserve.memoryMiB) };
}

type Asked = Pick<Workload, "resources" | "maxRuntimeSeconds">;

/**
 * The limits of a workload. Of what it does not name it gets: all CPUs that are lent; the memory that is lent, up to nine tenths of the
 * machine's, as the first to be killed where memory runs out; half of its memory as `/dev/shm`, which counts as memory; 4,096 processes; half of the
 * disk that is free and lent; the owner's longest run time. Never more than the owner's cap.
 */
export function limitsOf({ resources, maxRuntimeSeconds }: Asked, node: Lendable): Limits {
  const max = node.policy.max ?? {};
  const free = lent(node);
  const capped = (value: number, cap = Number.POSITIVE_INFINITY) => Math.min(value, cap);
  const memoryMiB =
    resources.memoryMiB ?? capped(Math.min(free.memoryMiB, Math.floor(node.memoryMiB * MEMORY_SHARE)), max.memoryMiB);
  const runSeconds = maxRuntimeSeconds ?? max.runSeconds;
  return {
    cpus: resources.cpus ?? capped(free.cpus, max.cpus),
    memoryMiB,
    shmMiB: resources.shmMiB ?? capped(Math.max(1, Math.floor(memoryMiB / 2)), max.shmMiB),
    pids: resources.pids ?? capped(PIDS_DEFAULT, max.pids),
    diskMiB: resources.diskMiB ?? capped(diskDefault(node), max.diskMiB),
    ...(runSeconds !== undefined && { maxRuntimeSeconds: runSeconds }),
    ...(maxRuntimeSeconds === undefined && runSeconds !== undefined && { runtimeIsCapped: true }),
  };
}

function diskDefault({ diskFreeMiB, policy }: Lendable): number {
  if (diskFreeMiB === undefined) return DISK_UNKNOWN_MIB;
  return Math.max(DISK_LEAST_MIB, Math.floor((diskFreeMiB - policy.reserve.diskMiB) * DISK_SHARE));
}

/** Throws where there is nothing left to lend to a workload that names no CPUs or no memory. */
export function requireSomethingLent({ resources }: Asked, node: Lendable): void {
  const { cpus, memoryMiB } = lent(node);
  const { reserve } = node.policy;
  if (resources.cpus === undefined && cpus < CPUS_LEAST) {
    throw new GpunodeError(
      "policy_denied",
      `this node lends no CPUs: policy.reserve.cpus ${reserve.cpus} keeps all of its ${node.cpus}`,
      { details: { limit: cpus } },
    );
  }
  if (resources.memoryMiB === undefined && memoryMiB < MEMORY_LEAST_MIB) {
    throw new GpunodeError(
      "insufficient_memory",
      `this node lends ${memoryMiB} MiB of memory (${node.memoryMiB} MiB less policy.reserve.memory_mib ${reserve.memoryMiB}): too little to run anything`,
      { details: { lent: memoryMiB } },
    );
  }
}

interface Cap {
  /** As the owner wrote it. */
  key: string;
  cap: keyof PolicyCaps;
  unit: string;
  asked(workload: CappedWorkload): number | undefined;
}

type CappedWorkload = Asked & Pick<Workload, "ports">;

const CAPS: readonly Cap[] = [
  { key: "cpus", cap: "cpus", unit: "CPUs", asked: ({ resources }) => resources.cpus },
  { key: "memory_mib", cap: "memoryMiB", unit: "MiB of memory", asked: ({ resources }) => resources.memoryMiB },
  { key: "shm_mib", cap: "shmMiB", unit: "MiB of shared memory", asked: ({ resources }) => resources.shmMiB },
  { key: "disk_mib", cap: "diskMiB", unit: "MiB of disk", asked: ({ resources }) => resources.diskMiB },
  { key: "pids", cap: "pids", unit: "processes", asked: ({ resources }) => resources.pids },
  { key: "ports", cap: "ports", unit: "ports", asked: ({ ports }) => ports.length },
  {
    key: "run_seconds",
    cap: "runSeconds",
    unit: "seconds of run time",
    asked: (workload) => workload.maxRuntimeSeconds,
  },
];

/** Throws `policy_denied` where the workload asks for more than the owner lets one have. */
export function requireWithinCaps(workload: CappedWorkload, max: PolicyCaps = {}): void {
  for (const { key, cap, unit, asked } of CAPS) {
    const [wanted, most] = [asked(workload), max[cap]];
    if (wanted === undefined || most === undefined || wanted <= most) continue;
    throw new GpunodeError("policy_denied", `${wanted} ${unit} asked for; policy.max.${key} allows ${most}`, {
      details: { asked: wanted, limit: most },
    });
  }
}
