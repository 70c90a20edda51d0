import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { promisify } from "node:util";
import { pack } from "tar-stream";
import { describe, expect, onTestFinished, test } from "vitest";
import { findOrUnpack } from "../../src/demo/debian-packages.ts";
import { loadIdentity } from "../../src/link/identity.ts";
import { openEngine, pullSmallImage, removeAll, specFor } from "../engine/harness.ts";
import { docker, engineIsPrivate, engineSocket, haveEngine } from "../support/engine.ts";
import { node, root, scratch } from "./gpunode.ts";

const CACHE_DIR = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");

/** The engine must be ours: the images of probes belong to no node, and all of them go. */
describe.runIf(haveEngine && engineIsPrivate)("service cleanup, which the package runs when it is removed", () => {
  test("takes containers, networks, the probe's image and the rules away, and leaves a note for the caches", async () => {
    const dir = scratch();
    const state = join(dir, "state");
    mkdirSync(state);
    const { firstNodeId: nodeId } = loadIdentity(join(state, "identity.pem"));
    const engine = openEngine({ nodeId });
    const other = openEngine();
    onTestFinished(async () => {
      await removeAll(other);
      for (const volume of [`cache-${nodeId}`, `cache-${other.nodeId}`]) {
        await docker()
          .getVolume(volume)
          .remove({})
          .catch(() => undefined);
      }
      await engine[Symbol.asyncDispose]();
      await other[Symbol.asyncDispose]();
    });
    const image = await pullSmallImage(engine);
    for (const one of [engine, other]) {
      const volumes = [{ name: `cache-${one.nodeId}`, path: "/cache" }];
      const id = await one.create(specFor(one, image, "trap 'exit 0' TERM; while :; do sleep 0.1; done", { volumes }));
      await one.start(id);
    }
    const labels = { "org.gpunode.node": nodeId };
    await engine.networks.create({
      name: `gpunode-${nodeId}`,
      bridge: `gpn-${nodeId.slice(0, 8)}`,
      labels,
      ipv6: false,
    });
    const archive = pack();
    archive.entry({ name: "node" }, "x");
    archive.finalize();
    const probe = await engine.importImage(Readable.from([await buffer(archive)]), {
      name: "gpunode.invalid/probe:cleanup",
      label: "org.gpunode.probe=cleanup",
      signal: AbortSignal.timeout(30_000),
    });

    const config = join(dir, "config.toml");
    writeFileSync(config, `state_dir = "${state}"\nrun_dir = "${dir}"\ndocker = { socket = "${engineSocket()}" }\n`);
    // Another test that removes a package may have been quicker with the image.
    expect(await cleanup(config)).toMatch(/containers: 1, networks: 1(?:, images: \d+)?\n(?:.*\n)*tables after: $/);
    expect(await engine.list(nodeId)).toEqual([]);
    expect(await engine.networks.list()).toEqual([]);
    await expect(docker().getImage(probe).inspect()).rejects.toMatchObject({ statusCode: 404 });
    expect(readFileSync(join(state, "docker-label"), "utf8")).toBe(`org.gpunode.node=${nodeId}\n`);
    expect(await docker().getVolume(`cache-${nodeId}`).inspect()).toMatchObject({ Labels: labels });
    expect((await other.list(other.nodeId)).map(({ status }) => status)).toEqual(["running"]);

    // Again: there is nothing, and nothing that fails.
    expect(await cleanup(config)).toMatch(/There was nothing\.|^ {2}images: \d+$/m);
  });

  test("makes no identity where there is none, and lets a package go whose engine does not answer", async () => {
    const dir = scratch();
    const config = join(dir, "config.toml");
    writeFileSync(config, `state_dir = "${dir}"\nrun_dir = "${dir}"\ndocker = { socket = "${dir}/docker.sock" }\n`);
    expect(await cleanup(config)).toContain("There never was a node here.");
    expect(existsSync(join(dir, "identity.pem"))).toBe(false);
    loadIdentity(join(dir, "identity.pem"));
    expect(await cleanup(config)).toMatch(/Left as it is: .*docker\.sock/);
  });
});

/** Runs it in a network namespace of its own with a table like ours. Returns what it says, and then the tables. */
async function cleanup(config: string): Promise<string> {
  const { paths, env } = await findOrUnpack({ nft: "nftables" }, { dir: CACHE_DIR, log: console.log });
  const script = '"$NFT" add table inet gpunode && "$@" && echo tables after: $("$NFT" list tables)';
  const command = [node, join(root, "src/cli/main.ts"), "service", "cleanup"];
  const { stdout } = await promisify(execFile)("unshare", ["--net", "sh", "-ec", script, "sh", ...command], {
    env: { ...process.env, ...env, NFT: paths.nft, GPUNODE_CONFIG: config },
  });
  return stdout.trimEnd().replace(/after:$/, "after: ");
}
