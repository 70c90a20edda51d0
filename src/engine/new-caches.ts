import { randomUUID } from "node:crypto";
import { posix } from "node:path";
import { buffer } from "node:stream/consumers";
import type { ContainerSpec } from "../workload/needs.ts";
import { CREATE_MS, type EngineClient, REMOVE_MS } from "./client.ts";
import { LABEL_NODE, volumeMount } from "./container.ts";
import { statusOf } from "./errors.ts";
import { inspectImage } from "./images.ts";

/** A user by number, with or without a group by number. A name means what the image's own files say. */
const BY_NUMBER = /^(\d+)(?::(\d+))?$/;

/**
 * Makes the caches of a container that are not there yet, as folders of the user it runs as: Docker makes them root's, and a workload that is not
 * root could not write to its own. One that was there keeps its owner.
 *
 * A tenant that runs may be at work in a volume, so nothing here touches one that exists. Owner and group are set through a second container
 * that has only the new volume and is never started, as in `put-file.ts`.
 */
export async function makeNewCaches(
  { client, nodeId }: { client: EngineClient; nodeId: string },
  spec: ContainerSpec,
): Promise<void> {
  if (spec.volumes.length === 0) return;
  const user = spec.user ?? (await inspectImage(client, spec.image))?.user ?? "";
  const [, uid, gid = "0"] = BY_NUMBER.exec(user) ?? [];
  if (uid === undefined || Number(uid) === 0) return;
  for (const volume of spec.volumes) {
    if (await isThere(client, volume.name)) continue;
    const name = `gpunode-cache-${randomUUID()}`;
    const door = client.docker.getContainer(name);
    const doing = `make the cache at ${volume.path}`;
    try {
      await client.ask(
        (abortSignal) =>
          client.docker.createContainer({
            name,
            // One that an agent left behind is found by its label, belongs to no workload and is removed as a stray.
            Labels: { [LABEL_NODE]: nodeId },
            Image: spec.image,
            Entrypoint: ["never-started"],
            Cmd: [],
            HostConfig: {
              NetworkMode: "none",
              LogConfig: { Type: "none", Config: {} },
              Mounts: [volumeMount(spec, volume)],
            },
            abortSignal,
          }),
        { doing, timeoutMs: CREATE_MS },
      );
      // From the folder around it: of the folder that an archive is unpacked into Docker leaves the owner alone.
      const target = posix.resolve(volume.path);
      const archive = await folderOf(posix.basename(target), { uid: Number(uid), gid: Number(gid) });
      const path = posix.dirname(target);
      await client.ask((abortSignal) => door.putArchive(archive, { path, abortSignal }), { doing });
    } finally {
      await client
        .ask((abortSignal) => door.remove({ v: true, force: true, abortSignal }), { doing, timeoutMs: REMOVE_MS })
        .catch((error: unknown) => {
          // It was never made, or somebody else is removing it.
          const status = statusOf(error);
          if (status !== 404 && status !== 409) throw error;
        });
    }
  }
}

async function isThere(client: EngineClient, volume: string): Promise<boolean> {
  try {
    await client.ask((abortSignal) => client.get(`/volumes/${volume}`, { abortSignal }), { doing: "look up a cache" });
    return true;
  } catch (error) {
    if (statusOf(error) === 404) return false;
    throw error;
  }
}

async function folderOf(name: string, owner: { uid: number; gid: number }): Promise<Buffer> {
  const { pack } = await import("tar-stream");
  const archive = pack();
  archive.entry({ name: `${name}/`, type: "directory", mode: 0o755, ...owner });
  archive.finalize();
  return await buffer(archive);
}
