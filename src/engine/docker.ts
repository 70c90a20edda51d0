import type { ProbeEngine } from "../isolation/needs.ts";
import type { Engine, Log } from "../workload/needs.ts";
import { engineClient } from "./client.ts";
import { diskAccount } from "./disk-usage.ts";
import { containerEvents } from "./events.ts";
import { execInside } from "./exec.ts";
import { inspectImage, listImages } from "./images.ts";
import { engineFacts } from "./info.ts";
import { localImages } from "./local-images.ts";
import { readLogs } from "./logs.ts";
import { ownNetworks } from "./networks.ts";
import { makeNewCaches } from "./new-caches.ts";
import { type OpenImagesMemory, openImages } from "./open-images.ts";
import { ownContainers } from "./own-containers.ts";
import { createPuller } from "./pull.ts";
import { putFile } from "./put-file.ts";
import { createStopper } from "./stop.ts";
import { usageReader } from "./usage.ts";
import { waitUntilDown } from "./wait.ts";

export interface DockerEngineOptions {
  /** Path of the engine's unix socket. */
  socketPath: string;
  /** Only containers whose `LABEL_NODE` is this are touched. */
  nodeId: string;
  /** GPUs are only named in the container's environment, not asked for from the engine: there are none. */
  simulatedGpus?: boolean;
  log?: Log;
  /** How long most requests may take; default 10 s. */
  answerMs?: number;
  /** Where it is kept which images were had without a login; absent: in memory alone. */
  openImages?: OpenImagesMemory;
  /** How often running containers are looked after besides the engine's events; default 10 s. */
  relistMs?: number;
}

/** The Docker engine with its networks, and where it keeps its data. */
export interface DockerEngine extends Engine, ProbeEngine, AsyncDisposable {
  /** Where it keeps images and layers on this machine, as `info` last told; undefined before. */
  dataRoot(): string | undefined;
}

/** The Docker engine behind a unix socket. Connects only when asked something, and keeps no connection that nobody uses. */
export function createDockerEngine(options: DockerEngineOptions): DockerEngine {
  const { nodeId, log } = options;
  const client = engineClient(options.socketPath, options);
  const events = containerEvents(client, nodeId, options);
  const containers = ownContainers(client, nodeId);
  const { inspect, requireOwn } = containers;
  const stopper = createStopper({ events, ...containers });
  const usage = usageReader(client);
  const facts = engineFacts(client);
  const open = openImages(options.openImages ?? { get: () => undefined, set: () => undefined });
  const made = localImages(client);

  return {
    nodeId,
    networks: ownNetworks(client, nodeId, facts.givesIpv6),
    findImage: made.find,
    importImage: made.importTar,
    info: facts.info,
    dataRoot: facts.dataRoot,
    pull: createPuller(client, open).pull,
    image: (reference) => inspectImage(client, reference),
    images: () => listImages(client),
    async create(spec) {
      await makeNewCaches({ client, nodeId }, spec);
      return await containers.create(spec, {
        hasInit: await facts.hasInit(),
        holdsDisk: facts.mayHoldDisk(),
        simulatedGpus: options.simulatedGpus === true,
      });
    },
    start: containers.start,
    async stop(id, how) {
      const own = await requireOwn(id);
      if (own !== undefined) await stopper.stop(own, how);
    },
    kill: containers.kill,
    async remove(id) {
      usage.forget(id);
      await containers.remove(id);
    },
    inspect,
    list: containers.list,
    async wait(id, signal) {
      // Events name the container by its full id.
      const own = (await inspect(id, signal))?.id;
      return own === undefined ? undefined : await waitUntilDown(own, { events, inspect }, signal);
    },
    async *logs(id, how) {
      yield* readLogs(client, await containers.requireThere(id), how);
    },
    async usage(id) {
      const own = await requireOwn(id);
      if (own !== undefined) return await usage.read(own);
      usage.forget(id);
      return undefined;
    },
    diskAccount: (signal) => diskAccount(client, nodeId, signal),
    async exec(id, argv, how) {
      return await execInside({ client, log }, await containers.requireThere(id), argv, how);
    },
    async putFile(id, file, { signal }) {
      const own = await requireOwn(id);
      if (own !== undefined) await putFile({ client, nodeId }, own, file, signal);
    },
    async [Symbol.asyncDispose]() {
      await stopper[Symbol.asyncDispose]();
      await events[Symbol.asyncDispose]();
      client[Symbol.dispose]();
    },
  };
}
