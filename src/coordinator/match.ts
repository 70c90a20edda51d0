import type { Advertise } from "../protocol/frames.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { GpuRequest, Resources } from "../protocol/workload.ts";

/**
 * Which node gets a workload. Pure. A node fits where its engine works, it accepts work, and what is free on it holds the
 * request. Of those that fit, the smallest goes first: least VRAM in the GPUs it would give, then fewest free GPUs, then
 * least free memory, so that large nodes stay free for those who need them.
 */

/** A connected node, with what is already given away on it. */
export interface Candidate {
  id: string;
  name: string;
  advertisement: Pick<Advertise, "gpus" | "host" | "engine" | "policy" | "state">;
  /** UUIDs of GPUs and MIG instances that workloads hold or are promised. */
  taken: ReadonlySet<string>;
  /** Live workloads there. */
  workloads: number;
  /** Sum of the `memoryMiB` promised to them. */
  memoryPromisedMiB: number;
  /** Why it is not asked now, e.g. because it refused this workload. */
  refusal?: string;
}

export interface Request {
  gpus: GpuRequest;
  resources: Resources;
}

/** Where it goes, or for each node the first reason why not, in words with the numbers. */
export type Match =
  | { fits: true; node: string; gpus: string[] }
  | { fits: false; reasons: { node: string; name: string; reason: string }[] };

/** A whole GPU, or one MIG instance of one. */
interface Unit {
  uuid: string;
  gpu: Gpu;
  vramMiB: number;
  taken: boolean;
  profile?: string;
}

type Fit = { gpus: string[]; rank: number[] } | { reason: string };

export function match(request: Request, candidates: readonly Candidate[]): Match {
  const reasons: { node: string; name: string; reason: string }[] = [];
  let best: { node: string; gpus: string[]; rank: number[] } | undefined;
  for (const candidate of candidates) {
    const fit = fitOn(candidate, request);
    if ("reason" in fit) reasons.push({ node: candidate.id, name: candidate.name, reason: fit.reason });
    else if (best === undefined || compare(fit.rank, best.rank) < 0) best = { node: candidate.id, ...fit };
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

function fitOn(candidate: Candidate, { gpus: request, resources }: Request): Fit {
  const { advertisement, taken } = candidate;
  if (candidate.refusal !== undefined) return { reason: candidate.refusal };
  if (advertisement.state === "draining") return { reason: "it is draining" };
  if (!advertisement.engine.available) return { reason: "its container engine is not available" };
  const { maxWorkloads } = advertisement.policy;
  if (maxWorkloads !== undefined && candidate.workloads >= maxWorkloads) {
    return { reason: `it takes ${maxWorkloads} workloads and has ${candidate.workloads}` };
  }
  const { reserve } = advertisement.policy;
  const cpus = Math.max(0, advertisement.host.cpus - (reserve?.cpus ?? 0));
  if (resources.cpus !== undefined && resources.cpus > cpus) {
    return { reason: `it lends ${cpus} CPUs, ${resources.cpus} asked for` };
  }
  const lent = Math.max(0, advertisement.host.memoryMiB - (reserve?.memoryMiB ?? 0));
  const memoryFreeMiB = Math.max(0, lent - candidate.memoryPromisedMiB);
  if (resources.memoryMiB !== undefined && resources.memoryMiB > memoryFreeMiB) {
    return {
      reason: `${memoryFreeMiB} of ${lent} MiB of memory are free, ${resources.memoryMiB} MiB asked for`,
    };
  }
  const units = unitsOf(advertisement.gpus, { migProfile: request.migProfile, taken });
  const chosen = chooseGpus(request, units);
  if ("reason" in chosen) return chosen;
  const vramMiB = chosen.units.reduce((sum, unit) => sum + unit.vramMiB, 0);
  const free = units.filter((unit) => !unit.taken).length;
  return { gpus: chosen.units.map((unit) => unit.uuid), rank: [vramMiB, free, memoryFreeMiB] };
}

/** With a profile the MIG instances, without one the whole GPUs; a GPU in MIG mode is never given whole. */
function unitsOf(
  gpus: readonly Gpu[],
  options: { migProfile: string | undefined; taken: ReadonlySet<string> },
): Unit[] {
  const { migProfile, taken } = options;
  if (migProfile === undefined) {
    return gpus
      .filter((gpu) => gpu.mig?.enabled !== true)
      .map((gpu) => ({ uuid: gpu.uuid, gpu, vramMiB: gpu.vramMiB ?? 0, taken: taken.has(gpu.uuid) }));
  }
  return gpus.flatMap((gpu) =>
    (gpu.mig?.instances ?? []).map(({ uuid, profile, vramMiB }) => ({
      uuid,
      gpu,
      vramMiB,
      profile,
      taken: taken.has(uuid) || taken.has(gpu.uuid),
    })),
  );
}

function chooseGpus(request: GpuRequest, units: readonly Unit[]): { units: Unit[] } | { reason: string } {
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
  const free = fitting.filter((unit) => !unit.taken).sort((a, b) => a.vramMiB - b.vramMiB || a.gpu.index - b.gpu.index);
  if (free.length < count) {
    return { reason: `${free.length} of ${fitting.length} fitting ${noun}s are free, ${count} asked for` };
  }
  if (request.nvlink !== true || count === 1) return { units: free.slice(0, count) };
  const linked = linkedGroup(free, count);
  return linked === undefined
    ? { reason: `no ${count} of its ${free.length} free fitting GPUs reach each other over NVLink` }
    : { units: linked };
}

/** The first reason why this unit can't serve, with the values compared. */
function misfit({ uuid, gpu, vramMiB, profile }: Unit, request: GpuRequest): string | undefined {
  const label = `GPU ${gpu.index} (${gpu.name})`;
  if (request.uuids !== undefined && !request.uuids.includes(uuid)) return `${label} is not among the UUIDs asked for`;
  if (!gpu.allocatable) {
    const why = gpu.health.reasons.map((reason) => reason.message).join(", ");
    return `${label} is not to be given (${gpu.health.status}${why === "" ? "" : `: ${why}`})`;
  }
  if (request.migProfile !== undefined && profile !== request.migProfile) {
    return `${label} has a MIG instance ${profile}, ${request.migProfile} asked for`;
  }
  if (request.minVramMiB !== undefined && vramMiB < request.minVramMiB) {
    const has = vramMiB === 0 ? "an unknown amount" : `${vramMiB} MiB`;
    return `${label} has ${has} of VRAM, ${request.minVramMiB} MiB asked for`;
  }
  const { minComputeCapability } = request;
  if (minComputeCapability !== undefined) {
    const has = gpu.computeCapability;
    if (has === undefined || compare(has.split(".").map(Number), minComputeCapability.split(".").map(Number)) < 0) {
      return `${label} has compute capability ${has ?? "unknown"}, ${minComputeCapability} asked for`;
    }
  }
  const missing = (request.precisions ?? []).filter((wanted) => !gpu.tensorCores?.precisions.includes(wanted));
  if (missing.length > 0) return `the tensor cores of ${label} do not multiply ${missing.join(", ")}`;
  return undefined;
}

/** `count` units of which each reaches each other over NVLink. Greedy: exact for NVLink pairs and full meshes, which is what is built. */
function linkedGroup(units: readonly Unit[], count: number): Unit[] | undefined {
  for (const first of units) {
    const group = [first];
    for (const unit of units) {
      if (group.length === count) break;
      if (unit !== first && group.every((member) => reaches(member, unit))) group.push(unit);
    }
    if (group.length === count) return group;
  }
  return undefined;
}

function reaches(a: Unit, b: Unit): boolean {
  return a.gpu.links.some((link) => link.kind === "nvlink" && link.gpu === b.gpu.uuid);
}

/** Number by number; what is missing counts as 0. Also orders versions. */
function compare(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
