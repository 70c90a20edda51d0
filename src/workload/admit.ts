import { posix } from "node:path";
import type { PolicyCaps } from "../protocol/agent-frames.ts";
import { GpunodeError } from "../protocol/errors.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { Workload } from "../protocol/workload.ts";
import { allocate, type Holders } from "./allocate.ts";
import { covers, isImageReference } from "./image-patterns.ts";
import { type Limits, lent, limitsOf, requireSomethingLent, requireWithinCaps } from "./limits.ts";
import { INBOX } from "./tenant-notice.ts";

/** What the provider allows; from the configuration. Each refusal names the rule it comes from. */
export interface Policy {
  /** Patterns of images that may run; see `covers`. */
  images: readonly string[];
  /** Only images named by their digest. */
  digestOnly?: boolean;
  maxWorkloads?: number;
  /** The most that one workload may have. */
  max?: PolicyCaps;
  /** Host ports given to workloads, both ends included. */
  hostPorts: { from: number; to: number };
  /** Host address the ports are published on. */
  hostIp: string;
  /** Kept back for the owner. */
  reserve: { cpus: number; memoryMiB: number; diskMiB: number };
  /** Container runtime, where the engine's default is not wanted. */
  runtime?: string;
  /** `require`: nothing runs unless root inside is an ordinary user outside. */
  userns?: "require";
  allowRoot: boolean;
  /** No volume is kept between workloads. */
  forbidCaches?: boolean;
  /** Every root file system is read-only, asked for or not. */
  readOnlyRoot?: boolean;
  /** A pull that has not moved for this long is given up. */
  pullNoProgressMs: number;
  /** Work that is taken back is gone within so long, whatever it asked for; a deadline that comes with the order goes before it. */
  preemptWithinMs: number;
  /** A workload may take GPUs from preemptible ones of lower priority. */
  priorityPreemption: boolean;
}

/** The node at the moment of admission. */
export interface NodeFacts {
  gpus: readonly Gpu[];
  /** Workloads by what they hold, and what is kept from being lent (`kept`) by why it is. */
  holders: Holders;
  /** Boards that are kept from being lent, by UUID, and why. */
  kept: Holders;
  policy: Policy;
  /** Why nothing at all is taken; undefined where something is. */
  heldBack?: string;
  /** Why the engine can't be used; undefined where it can. */
  engineProblem?: string;
  /** What the engine lacks that no workload may be without; undefined where it has all. */
  engineLacks?: string;
  /** Why workloads cannot be kept off the owner's network, where the owner wants that; undefined where they can. */
  isolationProblem?: string;
  cpus: number;
  memoryMiB: number;
  /** Free space where images and layers go; undefined is unknown. */
  diskFreeMiB?: number;
  /** Live workloads other than the one asked about. */
  live: readonly { id: string; memoryMiB: number; ports: number }[];
}

/**
 * Decides whether this node takes a workload, and gives its GPUs and its limits. Pure.
 *
 * Throws `GpunodeError` with the code, the values and the limit: `draining`, `engine_unavailable`, `image_not_allowed`,
 * `policy_denied`, `insufficient_memory`, `insufficient_disk`, `no_matching_gpu`, `gpu_busy`, `invalid_spec`.
 */
export function admit(workload: Workload, node: NodeFacts): { gpus: string[]; limits: Limits } {
  requireAllButGpus(workload, node);
  return { gpus: allocate(workload.gpus, node.gpus, node.holders), limits: limitsOf(workload, node) };
}

/** The same without its GPUs: throws what keeps the workload from this node in any other respect. */
export function requireAllButGpus(workload: Workload, node: NodeFacts): void {
  if (node.heldBack !== undefined) {
    throw new GpunodeError("draining", `the node accepts nothing new: ${node.heldBack}`);
  }
  if (node.engineProblem !== undefined) throw new GpunodeError("engine_unavailable", node.engineProblem);
  if (node.isolationProblem !== undefined) throw new GpunodeError("policy_denied", node.isolationProblem);
  requireStanding(workload, node);
  requireCount(node);
  requirePorts(workload, node);
  requireInboxFree(workload);
  requireResources(workload, node);
}

/**
 * The rules that hold whatever else runs here, and that a workload is held to again after a restart of the agent, under what its owner
 * may have changed meanwhile. Throws `image_not_allowed`, `policy_denied`, `invalid_spec`.
 */
export function requireStanding(
  workload: Pick<Workload, "image" | "user" | "caches" | "ports" | "resources" | "maxRuntimeSeconds">,
  { policy, engineLacks }: { policy: Policy; engineLacks?: string },
): void {
  requireImage(workload.image, policy);
  requireUser(workload.user, policy);
  if (policy.forbidCaches === true && workload.caches.length > 0) {
    throw new GpunodeError(
      "policy_denied",
      `policy.allow_caches is false and the workload asks for ${workload.caches.map(({ name }) => `"${name}"`).join(", ")}`,
    );
  }
  requireWithinCaps(workload, policy.max);
  if (engineLacks !== undefined) throw new GpunodeError("policy_denied", engineLacks);
}

/** Throws `invalid_spec` where it names no image, `image_not_allowed` where the provider's rules leave it out. */
export function requireImage(image: string, { images, digestOnly }: Pick<Policy, "images" | "digestOnly">): void {
  if (!isImageReference(image)) {
    throw new GpunodeError("invalid_spec", `"${image}" is no image reference; expected "repo:tag" or "repo@sha256:…"`);
  }
  if (!images.some((pattern) => covers(pattern, image))) {
    throw new GpunodeError(
      "image_not_allowed",
      `policy.images allows ${images.length === 0 ? "no image" : images.join(", ")}; ${image} is not among them`,
    );
  }
  if (digestOnly !== true || image.includes("@")) return;
  throw new GpunodeError(
    "image_not_allowed",
    `policy.digest_only is true and ${image} is no digest: name it as "repo@sha256:…"`,
  );
}

/** A user that is certainly not root: a number other than 0. A name may stand for root in the image's own passwd. */
const NOT_ROOT = /^0*[1-9]\d*(:|$)/;

/** Throws `policy_denied` where `user` may be root and the provider does not allow that. */
function requireUser(user: string | undefined, policy: Policy): void {
  if (user !== undefined && !NOT_ROOT.test(user)) requireRootAllowed(policy);
}

/** The same for the user a container really gets, once the image is known: the workload's own, or else the image's. */
export function requireEffectiveUser(user: string | undefined, imageUser: string, policy: Policy): void {
  requireUser(user ?? imageUser, policy);
}

function requireRootAllowed(policy: Policy): void {
  if (policy.allowRoot) return;
  throw new GpunodeError(
    "policy_denied",
    'policy.allow_root does not allow it and the container might run as root: set "user" of the workload, or USER in the image, to a number such as 1000',
  );
}

function requireCount({ policy, live }: NodeFacts): void {
  if (policy.maxWorkloads !== undefined && live.length >= policy.maxWorkloads) {
    throw new GpunodeError(
      "policy_denied",
      `policy.max_workloads is ${policy.maxWorkloads} and ${live.length} are on this node already`,
      { details: { limit: policy.maxWorkloads, present: live.length } },
    );
  }
}

function requirePorts(workload: Workload, { policy, live }: NodeFacts): void {
  const probe = workload.health;
  if (
    probe !== undefined &&
    "http" in probe &&
    !workload.ports.some(({ container, protocol }) => container === probe.http.port && protocol === "tcp")
  ) {
    throw new GpunodeError("invalid_spec", `health.http.port ${probe.http.port} is not among the workload's TCP ports`);
  }
  const seen = new Set<string>();
  for (const port of workload.ports) {
    const key = `${port.container}/${port.protocol}`;
    if (seen.has(key)) throw new GpunodeError("invalid_spec", `port ${key} is listed twice`);
    seen.add(key);
  }
  const size = policy.hostPorts.to - policy.hostPorts.from + 1;
  const used = live.reduce((sum, other) => sum + other.ports, 0);
  if (workload.ports.length <= size - used) return;
  throw new GpunodeError(
    "policy_denied",
    `${workload.ports.length} ports asked for; policy.host_ports ${policy.hostPorts.from}-${policy.hostPorts.to} has ${size - used} of ${size} left`,
    { details: { asked: workload.ports.length, left: size - used } },
  );
}

function requireInboxFree({ caches }: Workload): void {
  const taken = caches.find(({ path }) => posix.resolve(path) === INBOX);
  if (taken === undefined) return;
  throw new GpunodeError("invalid_spec", `cache "${taken.name}" cannot be at ${INBOX}: gpunode's own files are there`);
}

function requireResources(workload: Workload, node: NodeFacts): void {
  const { resources } = workload;
  const { reserve } = node.policy;
  const { cpus, memoryMiB, diskMiB, shmMiB } = resources;
  const { cpus: cpusLent, memoryMiB: memoryLent } = lent(node);
  if (cpus !== undefined && cpus > cpusLent) {
    throw new GpunodeError(
      "policy_denied",
      `${cpus} CPUs asked for; this node lends ${cpusLent} (${node.cpus} less policy.reserve.cpus ${reserve.cpus})`,
      { details: { asked: cpus, limit: cpusLent } },
    );
  }
  const promised = node.live.reduce((sum, other) => sum + other.memoryMiB, 0);
  if (memoryMiB !== undefined && memoryMiB > memoryLent - promised) {
    throw new GpunodeError(
      "insufficient_memory",
      `${memoryMiB} MiB of memory asked for; ${Math.max(0, memoryLent - promised)} MiB are free (${memoryLent} MiB lent, ${promised} MiB promised to others)`,
      { details: { asked: memoryMiB, lent: memoryLent, promised } },
    );
  }
  if (shmMiB !== undefined && memoryMiB !== undefined && shmMiB > memoryMiB) {
    throw new GpunodeError(
      "invalid_spec",
      `shmMiB ${shmMiB} is more than memoryMiB ${memoryMiB}, which it counts against`,
    );
  }
  if (diskMiB !== undefined && node.diskFreeMiB !== undefined && diskMiB > node.diskFreeMiB - reserve.diskMiB) {
    throw new GpunodeError(
      "insufficient_disk",
      `${diskMiB} MiB of disk asked for; ${Math.max(0, node.diskFreeMiB - reserve.diskMiB)} MiB are free (${node.diskFreeMiB} MiB less policy.reserve.disk_mib ${reserve.diskMiB})`,
      { details: { asked: diskMiB, free: node.diskFreeMiB, reserved: reserve.diskMiB } },
    );
  }
  requireSomethingLent(workload, node);
}
