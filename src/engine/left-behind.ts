import * as z from "zod";
import { ImageListAnswer } from "./answers.ts";
import { type EngineClient, engineClient, parseAnswer, REMOVE_MS } from "./client.ts";
import { isUp, LABEL_NODE } from "./container.ts";
import { statusOf } from "./errors.ts";
import { LABEL_PROBE } from "./images.ts";
import { ownNetworks } from "./networks.ts";
import { ownContainers } from "./own-containers.ts";

/** So long a container that still runs may take to end before it is killed. */
const GRACE_SECONDS = 10;
const VolumeListAnswer = z.object({ Volumes: z.array(z.object({ Name: z.string() })).nullish() });

/** What was taken away from the engine. */
export interface Removed {
  containers: number;
  networks: number;
  images: number;
  caches: number;
}

/**
 * Takes away what a node that does not run any more has left at the engine: its containers, which end first where they still run, their
 * networks, the image of its probe, and with `caches` the volumes its workloads kept. Images of workloads stay: they bear no node's name.
 *
 * Throws `engine_unavailable` where there is no engine; may be repeated.
 */
export async function removeLeftBehind({
  socketPath,
  nodeId,
  caches,
}: {
  socketPath: string;
  nodeId: string;
  caches: boolean;
}): Promise<Removed> {
  using client = engineClient(socketPath);
  const removed: Removed = { containers: 0, networks: 0, images: 0, caches: 0 };
  // The probe of the isolation passes for a node of its own.
  for (const id of [nodeId, `${nodeId}.probe`]) {
    removed.containers += await removeContainers(client, id);
    const networks = ownNetworks(client, id, async () => false);
    for (const network of await networks.list()) if (await networks.remove(network.id)) removed.networks += 1;
  }
  removed.images = await removeProbeImages(client);
  if (caches) removed.caches = await removeCaches(client, nodeId);
  return removed;
}

async function removeContainers(client: EngineClient, nodeId: string): Promise<number> {
  const containers = ownContainers(client, nodeId);
  const found = await containers.list(nodeId);
  await Promise.all(
    found.map(async (state) => {
      if (isUp(state)) await stop(client, state.id);
      await containers.remove(state.id);
    }),
  );
  return found.length;
}

async function stop(client: EngineClient, id: string): Promise<void> {
  const doing = `stop container ${id.slice(0, 12)}`;
  await unlessGone(
    client.ask((abortSignal) => client.docker.getContainer(id).stop({ t: GRACE_SECONDS, abortSignal }), {
      doing,
      timeoutMs: REMOVE_MS,
    }),
  );
}

async function removeProbeImages(client: EngineClient): Promise<number> {
  const query = { filters: JSON.stringify({ label: [LABEL_PROBE] }) };
  const answer = await client.ask((abortSignal) => client.get("/images/json", { query, abortSignal }), {
    doing: "look for the probe's image",
  });
  let removed = 0;
  for (const { Id } of parseAnswer(ImageListAnswer, answer, "images")) {
    const gone = client.ask((abortSignal) => client.docker.getImage(Id).remove({ abortSignal }), {
      doing: "remove the probe's image",
      timeoutMs: REMOVE_MS,
    });
    if (await unlessGone(gone)) removed += 1;
  }
  return removed;
}

async function removeCaches(client: EngineClient, nodeId: string): Promise<number> {
  const query = { filters: JSON.stringify({ label: [`${LABEL_NODE}=${nodeId}`] }) };
  const answer = await client.ask((abortSignal) => client.get("/volumes", { query, abortSignal }), {
    doing: "list the caches",
  });
  let removed = 0;
  for (const { Name } of parseAnswer(VolumeListAnswer, answer, "volumes").Volumes ?? []) {
    const gone = client.ask((abortSignal) => client.docker.getVolume(Name).remove({ abortSignal }), {
      doing: `remove the cache ${Name}`,
      timeoutMs: REMOVE_MS,
    });
    if (await unlessGone(gone)) removed += 1;
  }
  return removed;
}

/** False where the engine did nothing: it is not there (404, 304 where it does not run), or somebody else uses it (409). */
async function unlessGone(request: Promise<unknown>): Promise<boolean> {
  try {
    await request;
    return true;
  } catch (error) {
    if ([304, 404, 409].includes(statusOf(error) ?? 0)) return false;
    throw error;
  }
}
