import { setTimeout as sleep } from "node:timers/promises";
import { GpunodeError } from "../protocol/errors.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { PortBinding } from "../protocol/workload.ts";
import { orAborted } from "./abort.ts";
import { type Policy, requireEffectiveUser, requireStanding } from "./admit.ts";
import { containerSpec, ownLabels } from "./container-spec.ts";
import { checkImageDemands, type DriverFacts } from "./image-demands.ts";
import type { Limits } from "./limits.ts";
import type { ContainerState, Engine, SignatureCheck, WorkloadNetworks } from "./needs.ts";
import { alreadyCounted } from "./plan.ts";
import { containerName, eventOf, type Secrets, type WorkloadRecord } from "./record.ts";
import type { WrittenRecord } from "./written-record.ts";

/**
 * The steps that bring a workload up, from its image to a container that runs. Each writes into the record what it has done, so that a
 * restarted agent goes on where this one was, and rejects with the signal's reason when it is aborted: an order to end, or the agent
 * leaves.
 */

/** What a workload is made from and held to on this node. */
export interface NodeDoors {
  engine: Engine;
  /** The wall clock, for what is told; milliseconds since the epoch. */
  now(): number;
  /** The clock for deadlines, which no step of the wall clock moves; milliseconds since the epoch. */
  steady(): number;
  policy: Policy;
  /** Absent where the provider wants no signatures. */
  requireSignature?: SignatureCheck;
  nodeId: string;
  /** Absent where workloads are on the engine's default bridge. */
  networks?: WorkloadNetworks;
  host: { architecture: string };
  driver(): DriverFacts;
  gpus(uuids: readonly string[]): Gpu[];
  /** What the record is held to. */
  limits(record: WorkloadRecord): Limits;
  /** What the engine lacks that no workload may be without. */
  engineLacks?(): string | undefined;
  /** Resolves when no other workload holds this record's GPUs any more. */
  gpusFree(record: WorkloadRecord, signal: AbortSignal): Promise<void>;
  /** Free host ports for the record, none of them taken by another workload or a listener of the host. */
  pickPorts(record: WorkloadRecord): Promise<PortBinding[]>;
}

export interface BringUpDoors extends NodeDoors {
  /** The workload's secrets as far as they are known now. */
  secrets(): Secrets | undefined;
  /** Resolves when they have come. */
  secretsCame(): Promise<void>;
  /** Bytes pulled so far; undefined when no pull is under way any more. */
  pulled(bytes: { currentBytes: number; totalBytes: number } | undefined): void;
}

const RESTART_BACKOFF_MOST_MS = 60_000;

/** Pulls the image and checks it; the workload is `starting` then. Throws as the engine and the checks do. */
export async function pullImage(record: WrittenRecord, doors: BringUpDoors, signal: AbortSignal): Promise<void> {
  requireStillAllowed(record, doors);
  await awaitSecrets(record, doors, signal);
  if (record.current.state === "accepted") record.move("pulling", {});
  const began = performance.now();
  const image = await fetchImage(record, doors, signal);
  record.move("starting", { ...image, timings: { ...record.current.timings, pullMs: elapsed(began) } });
}

/** Makes the container, when its GPUs are free, on its network and with its host ports. Throws as the engine and the checks do. */
export async function createContainer(record: WrittenRecord, doors: BringUpDoors, signal: AbortSignal): Promise<void> {
  await awaitSecrets(record, doors, signal);
  await doors.gpusFree(record.current, signal);
  requireStillAllowed(record, doors);
  if (record.current.spec.ports.length > 0) record.save({ ports: await doors.pickPorts(record.current) });
  signal.throwIfAborted();
  const began = performance.now();
  const containerId = await createWithImage(record, await openNetwork(record, doors, signal), doors, signal);
  record.save({ containerId, timings: { ...record.current.timings, createMs: elapsed(began) } });
}

/** Starts the container; the workload is `running` then. Throws as the engine does. */
export async function startContainer(
  record: WrittenRecord,
  container: ContainerState,
  doors: BringUpDoors,
  signal: AbortSignal,
): Promise<void> {
  // A reboot between create and start takes the rules away and leaves the container.
  await openNetwork(record, doors, signal);
  const began = performance.now();
  await doors.engine.start(container.id);
  const timings = { ...record.current.timings, startMs: elapsed(began) };
  const { now, steady } = doors;
  record.move("running", { containerId: container.id, startedAt: now(), startedSteady: steady(), timings });
}

/** The container runs already, by a start whose answer was lost: `running` since the engine started it. */
export function markRunning(
  record: WrittenRecord,
  container: ContainerState,
  { now, steady }: Pick<BringUpDoors, "now" | "steady">,
): void {
  const startedAt = container.startedAt === undefined ? now() : Date.parse(container.startedAt);
  const startedSteady = steady() - Math.max(0, now() - startedAt);
  record.move("running", { containerId: container.id, startedAt, startedSteady });
}

/** Starts a container again that has ended, after a pause that doubles with each restart. Throws as the engine does. */
export async function restartContainer(
  record: WrittenRecord,
  container: ContainerState,
  doors: BringUpDoors,
  signal: AbortSignal,
): Promise<void> {
  if (!alreadyCounted(record.current, container)) {
    const restarts = record.current.restarts + 1;
    await sleep(Math.min(1000 * 2 ** (restarts - 1), RESTART_BACKOFF_MOST_MS), undefined, { signal });
    const message = `exited with code ${container.exitCode}; restart ${restarts} of ${record.current.spec.restart.maxRetries}`;
    const restartedAfter = container.finishedAt;
    const { healthy: _verdict, ...rest } = record.current;
    const next = { ...rest, restarts, ...(restartedAfter !== undefined && { restartedAfter }) };
    record.replace(next, [eventOf({ ...next, reason: "restarted", message })]);
  }
  await openNetwork(record, doors, signal);
  signal.throwIfAborted();
  await doors.engine.start(container.id);
  // Those who follow its output go on reading only now that it writes again.
  record.tellChanged();
}

/** The owner may have changed the rules and started the agent anew since the workload was taken in. */
function requireStillAllowed(record: WrittenRecord, { policy, engineLacks }: BringUpDoors): void {
  const lacks = engineLacks?.();
  requireStanding(record.current.spec, { policy, ...(lacks !== undefined && { engineLacks: lacks }) });
}

/** After a restart of the agent the secrets come back with the next `sync`; until then nothing is made without them. */
async function awaitSecrets(record: WrittenRecord, doors: BringUpDoors, signal: AbortSignal): Promise<void> {
  if (!record.current.hadSecrets || doors.secrets() !== undefined) return;
  await orAborted(doors.secretsCame(), signal);
}

/** Pulls the image and checks what it demands of this node. */
async function fetchImage(
  record: WrittenRecord,
  doors: BringUpDoors,
  signal: AbortSignal,
): Promise<{ imageId: string; imageDigest: string }> {
  const { engine, policy } = doors;
  const { image: reference, user, gpus, env } = record.current.spec;
  const auth = doors.secrets()?.registryAuth;
  try {
    const login = auth === undefined ? {} : { auth };
    const image = await engine.pull(reference, {
      ...login,
      noProgressMs: policy.pullNoProgressMs,
      onProgress: (currentBytes, totalBytes) => doors.pulled({ currentBytes, totalBytes }),
      signal,
    });
    const needed = gpus.count === 0 ? [] : doors.gpus(record.current.gpus);
    // The container's environment is the image's with the workload's on top, and the toolkit reads the whole.
    const own = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    checkImageDemands({ ...image, env: [...image.env, ...own] }, doors.host, doors.driver(), needed);
    requireEffectiveUser(user, image.user, policy);
    await doors.requireSignature?.(byDigest(reference, image.digest), { ...login, signal });
    return { imageId: image.id, imageDigest: image.digest };
  } finally {
    doors.pulled(undefined);
  }
}

async function openNetwork(
  record: WrittenRecord,
  { networks, nodeId }: BringUpDoors,
  signal: AbortSignal,
): Promise<{ network?: string }> {
  if (networks === undefined) return {};
  const container = { name: containerName(record.current, nodeId), labels: ownLabels(record.current, nodeId) };
  return { network: await networks.open(container, signal) };
}

/** An image that was pruned since its pull is pulled once more. */
async function createWithImage(
  record: WrittenRecord,
  on: { network?: string },
  doors: BringUpDoors,
  signal: AbortSignal,
): Promise<string> {
  const { engine, policy, nodeId } = doors;
  const limits = doors.limits(record.current);
  const create = () => engine.create(containerSpec(record.current, doors.secrets(), { policy, nodeId, limits, ...on }));
  try {
    return await create();
  } catch (error) {
    if (!(error instanceof GpunodeError) || error.code !== "pull_failed") throw error;
    signal.throwIfAborted();
    record.save(await fetchImage(record, doors, signal));
    signal.throwIfAborted();
    return await create();
  }
}

/** The very image of a reference, whatever its tag says meanwhile. */
function byDigest(reference: string, digest: string): string {
  return `${reference.replace(/@.*$/, "").replace(/:[^:/]*$/, "")}@${digest}`;
}

function elapsed(since: number): number {
  return Math.round(performance.now() - since);
}
