import { randomUUID } from "node:crypto";
import { posix } from "node:path";
import { buffer } from "node:stream/consumers";
import type Docker from "dockerode";
import { GpunodeError } from "../protocol/errors.ts";
import type { SmallFile } from "../workload/needs.ts";
import { type ContainerVolumes, ContainerVolumesAnswer } from "./answers.ts";
import { CREATE_MS, type EngineClient, parseAnswer, REMOVE_MS } from "./client.ts";
import { LABEL_NODE } from "./container.ts";
import { statusOf } from "./errors.ts";

/**
 * A small file into the inbox of a container (`ContainerSpec.inbox`), which is an anonymous volume.
 *
 * The archive request is never made of the tenant's own container. To answer it the engine mounts that container's volumes once
 * more below its root, on the host's side, while the tenant's processes move folders and links about under it; until Docker 29.5
 * such a race could lead out of the container (GHSA-vp62-88p7-qqf5). So the file goes in by a second container of the same image that
 * has only the inbox and is never started: nobody moves anything in there. Decision 12 has the measurements.
 */
export async function putFile(
  doors: { client: EngineClient; nodeId: string },
  containerId: string,
  file: SmallFile,
  signal: AbortSignal,
): Promise<void> {
  const { client, nodeId } = doors;
  const folder = posix.dirname(file.path);
  const there = await volumesOf(client, containerId, signal);
  if (there === undefined) return;
  const volume = there.Mounts.find(({ Type, Destination }) => Type === "volume" && Destination === folder)?.Name;
  if (volume === undefined) {
    throw new GpunodeError(
      "unsupported",
      `container ${containerId.slice(0, 12)} has no inbox at ${folder}: it was made without one`,
      { details: { reason: "no_inbox" } },
    );
  }
  const name = `gpunode-inbox-${containerId.slice(0, 12)}-${randomUUID().slice(0, 8)}`;
  const door = client.docker.getContainer(name);
  try {
    const request = doorRequest({ name, nodeId, folder, volume, there });
    // Not cut by the signal: the engine would make it all the same, and nobody would know of it.
    await client.ask((abortSignal) => client.docker.createContainer({ ...request, abortSignal }), {
      doing: `open the inbox of container ${containerId.slice(0, 12)}`,
      timeoutMs: CREATE_MS,
    });
    signal.throwIfAborted();
    const archive = await archiveOf(file);
    await client.ask((abortSignal) => door.putArchive(archive, { path: folder, abortSignal }), {
      doing: `write ${file.path} into container ${containerId.slice(0, 12)}`,
      signal,
    });
  } finally {
    await closeDoor(client, door);
    // Where the container went away meanwhile, it left its volume to the door.
    if ((await volumesOf(client, containerId)) === undefined) await removeVolume(client, volume);
  }
}

/** undefined where there is no such container any more. */
async function volumesOf(
  client: EngineClient,
  containerId: string,
  signal?: AbortSignal,
): Promise<ContainerVolumes | undefined> {
  try {
    const answer = await client.ask((abortSignal) => client.docker.getContainer(containerId).inspect({ abortSignal }), {
      doing: `look up container ${containerId.slice(0, 12)}`,
      signal,
    });
    return parseAnswer(ContainerVolumesAnswer, answer, "a container");
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw error;
  }
}

function doorRequest(of: {
  name: string;
  nodeId: string;
  folder: string;
  volume: string;
  there: ContainerVolumes;
}): Docker.ContainerCreateOptions {
  const { name, nodeId, folder, volume, there } = of;
  // An image's own volumes would be filled with what the image has there, which may be much.
  const others = Object.keys(there.Config.Volumes).filter((path) => path !== folder);
  return {
    name,
    // One that an agent left behind is found by its label, belongs to no workload and is removed as a stray.
    Labels: { [LABEL_NODE]: nodeId },
    Image: there.Image,
    Entrypoint: ["never-started"],
    Cmd: [],
    HostConfig: {
      NetworkMode: "none",
      LogConfig: { Type: "none", Config: {} },
      Mounts: [
        { Type: "volume", Source: volume, Target: folder },
        ...others.map((path) => ({ Type: "tmpfs" as const, Source: "", Target: path })),
      ],
    },
  };
}

/**
 * The file, root's. It is written under a name that begins with a dot and then linked to its own: whoever opens it by its own name
 * finds all of it, or, for an instant while it is replaced, no file.
 */
async function archiveOf({ path, text, mode }: SmallFile): Promise<Buffer> {
  const name = posix.basename(path);
  const { pack } = await import("tar-stream");
  const archive = pack();
  archive.entry({ name: `.${name}`, mode, uid: 0, gid: 0 }, text);
  archive.entry({ name, mode, uid: 0, gid: 0, type: "link", linkname: `.${name}` });
  archive.finalize();
  return await buffer(archive);
}

/** Also after an abort: it must not stay behind. */
async function closeDoor(client: EngineClient, door: Docker.Container): Promise<void> {
  try {
    // With its anonymous volumes; the inbox has a name here and stays.
    await client.ask((abortSignal) => door.remove({ v: true, force: true, abortSignal }), {
      doing: "close the inbox of a container",
      timeoutMs: REMOVE_MS,
    });
  } catch (error) {
    const status = statusOf(error);
    // 404: it was never made. 409: somebody else is removing it.
    if (status !== 404 && status !== 409) throw error;
  }
}

async function removeVolume(client: EngineClient, volume: string): Promise<void> {
  try {
    await client.ask((abortSignal) => client.docker.getVolume(volume).remove({ abortSignal }), {
      doing: "remove the inbox of a container that is gone",
    });
  } catch (error) {
    const status = statusOf(error);
    if (status !== 404 && status !== 409) throw error;
  }
}
