import { choose } from "../placement/choose.ts";
import { compareNumbers, misfit, type Unit, unitsOf } from "../placement/unit.ts";
import type { Holder } from "../placement/victims.ts";
import type { Advertise } from "../protocol/agent-frames.ts";
import type { GpuRequest, Resources } from "../protocol/workload.ts";
import { steadiness } from "./steadiness.ts";

/**
 * Which node gets a workload. Pure. A node fits where its engine works, it accepts work, and what is free on it holds the
 * request. Of those that fit, the smallest goes first: least VRAM in the GPUs it would give, then fewest free GPUs, then
 * least free memory, so that large nodes stay free for those who need them. Among equals the steadier one goes first.
 */

/** Free memory is compared in steps: machines of one kind differ by some MiB, and that must not decide before their steadiness does. */
const MEMORY_STEP_MIB = 8192;
/** A live workload on a node, with what it holds. */
export interface Placed extends Holder {
  memoryMiB: number;
}

/** A connected node, with what is already given away on it. */
export interface Candidate {
  id: string;
  name: string;
  advertisement: Pick<Advertise, "gpus" | "host" | "engine" | "policy" | "state" | "reliability">;
  /** UUIDs of GPUs and MIG instances that workloads hold or are promised. */
  taken: ReadonlySet<string>;
  /** Live workloads there. */
  workloads: number;
  /** Sum of the `memoryMiB` promised to them. */
  memoryPromisedMiB: number;
  /** Those of them that are not ending; a higher priority may take theirs (`match-by-priority.ts`). */
  staying: readonly Placed[];
  /** UUIDs that are taken by somebody who is none of ours. */
  strange: ReadonlySet<string>;
  /** Why it is not asked now, e.g. because it refused this workload. */
  refusal?: string;
}

export interface Request {
  gpus: GpuRequest;
  resources: Resources;
}

/** Where it goes, with the workloads that have to end for it, or for each node the first reason why not, in words with the numbers. */
export type Match =
  | { fits: true; node: string; gpus: string[]; takesFrom?: string[] }
  | { fits: false; reasons: { node: string; name: string; reason: string }[] };

type Fit = { gpus: string[]; rank: number[] } | { reason: string };

export function match(request: Request, candidates: readonly Candidate[]): Match {
  const reasons: { node: string; name: string; reason: string }[] = [];
  let best: { node: string; gpus: string[]; rank: number[] } | undefined;
  for (const candidate of candidates) {
    const fit = fitOn(candidate, request);
    if ("reason" in fit) reasons.push({ node: candidate.id, name: candidate.name, reason: fit.reason });
    else if (best === undefined || compareNumbers(fit.rank, best.rank) < 0) best = { node: candidate.id, ...fit };
  }
  return best === undefined ? { fits: false, reasons } : { fits: true, node: best.node, gpus: best.gpus };
}

/** The reasons in one sentence, for the operator. At most five nodes are named. */
export function explain(reasons: readonly { name: string; reason: string }[]): string {
  if (reasons.length === 0) return "no node is connected";
  const named = reasons.slice(0, 5).map(({ name, reason }) => `${name}: ${reason}`);
  const more = reasons.length - named.length;
  return named.join("; ") + (more > 0 ? `; and ${more} more nodes` : "");
}

/** What the node would give, or the first reason why it can't. A rank of lower numbers is better. */
export function fitOn(candidate: Candidate, { gpus: request, resources }: Request): Fit {
  const { advertisement, taken } = candidate;
  const reason = obstacle(candidate, resources);
  if (reason !== undefined) return { reason };
  const units = unitsOf(advertisement.gpus, request);
  const isFree = (unit: Unit) => !taken.has(unit.uuid) && !taken.has(unit.gpu.uuid);
  const chosen = chooseGpus(request, units, isFree);
  if ("reason" in chosen) return chosen;
  const vramMiB = chosen.units.reduce((sum, unit) => sum + (unit.vramMiB ?? 0), 0);
  const free = units.filter(isFree).length;
  const { freeMiB } = memory(candidate);
  const memorySteps = Math.floor(freeMiB / MEMORY_STEP_MIB);
  const rank = [vramMiB, free, memorySteps, ...steadiness(advertisement.reliability), freeMiB];
  return { gpus: chosen.units.map((unit) => unit.uuid), rank };
}

/** The first reason why a node can't take a workload of these resources, whatever its GPUs; undefined where there is none. */
export function obstacle(candidate: Candidate, resources: Resources): string | undefined {
  const { advertisement, workloads } = candidate;
  if (candidate.refusal !== undefined) return candidate.refusal;
  if (advertisement.state === "draining") return "it is draining";
  if (!advertisement.engine.available) return "its container engine is not available";
  const { maxWorkloads, reserve } = advertisement.policy;
  if (maxWorkloads !== undefined && workloads >= maxWorkloads) {
    return `it takes ${maxWorkloads} workloads and has ${workloads}`;
  }
  const cpus = Math.max(0, advertisement.host.cpus - (reserve?.cpus ?? 0));
  if (resources.cpus !== undefined && resources.cpus > cpus) {
    return `it lends ${cpus} CPUs, ${resources.cpus} asked for`;
  }
  for (const [resource, unit] of CAPPED) {
    const [asked, most] = [resources[resource], advertisement.policy.max?.[resource]];
    if (asked !== undefined && most !== undefined && asked > most) {
      return `it lends ${most} ${unit} to one workload, ${asked} asked for`;
    }
  }
  const { lentMiB, freeMiB } = memory(candidate);
  if (resources.memoryMiB !== undefined && resources.memoryMiB > freeMiB) {
    return `${freeMiB} of ${lentMiB} MiB of memory are free, ${resources.memoryMiB} MiB asked for`;
  }
  return undefined;
}

/** What a provider may cap, of what is asked for. */
const CAPPED = [
  ["cpus", "CPUs"],
  ["memoryMiB", "MiB of memory"],
  ["shmMiB", "MiB of shared memory"],
  ["diskMiB", "MiB of disk"],
  ["pids", "processes"],
] as const;

function memory({ advertisement, memoryPromisedMiB }: Candidate): { lentMiB: number; freeMiB: number } {
  const { host, policy } = advertisement;
  const lentMiB = Math.max(0, host.memoryMiB - (policy.reserve?.memoryMiB ?? 0));
  return { lentMiB, freeMiB: Math.max(0, lentMiB - memoryPromisedMiB) };
}

function chooseGpus(
  request: GpuRequest,
  units: readonly Unit[],
  isFree: (unit: Unit) => boolean,
): { units: Unit[] } | { reason: string } {
  const { count } = request;
  if (count === 0) return { units: [] };
  const noun = request.migProfile === undefined ? "GPU" : "MIG instance";
  if (units.length === 0) return { reason: `it has no ${noun} to give, ${count} asked for` };
  let firstMisfit: string | undefined;
  const fitting = units.filter((unit) => {
    const reason = misfit(unit, request);
    firstMisfit ??= reason;
    return reason === undefined;
  });
  if (fitting.length < count) {
    const tally = units.length === 1 ? "" : `${fitting.length} of ${units.length} ${noun}s fit, ${count} asked for: `;
    return {
      reason: firstMisfit === undefined ? `it has ${units.length} ${noun}s, ${count} asked for` : tally + firstMisfit,
    };
  }
  const free = fitting.filter(isFree);
  if (free.length < count) {
    return { reason: `${free.length} of ${fitting.length} fitting ${noun}s are free, ${count} asked for` };
  }
  const chosen = choose(free, request);
  return chosen === undefined
    ? { reason: `no ${count} of its ${free.length} free fitting GPUs reach each other over NVLink` }
    : { units: chosen };
}
