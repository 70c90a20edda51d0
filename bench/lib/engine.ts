import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Docker from "dockerode";
import { TestbedUnavailableError } from "../../src/demo/debian-packages.ts";
import { buildImage } from "../../src/demo/image.ts";
import { startPrivateEngine } from "../../src/demo/private-engine.ts";
import { startRegistry } from "../../src/demo/registry.ts";
import { type BenchEngine, CannotRun } from "./figure.ts";

/** A private engine and a registry beside it; needs root on Debian. Throws `CannotRun`. */
export async function openEngine(root: string): Promise<BenchEngine & AsyncDisposable> {
  const things = new AsyncDisposableStack();
  const dir = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
  things.defer(() => rmSync(dir, { recursive: true, force: true }));
  try {
    const packagesDir = join(root, "node_modules/.cache/gpunode-testbed");
    const engine = things.use(
      await startPrivateEngine({ dir: join(dir, "e"), log: () => undefined, gpuHook: true, packagesDir }),
    );
    const registry = things.use(await startRegistry());
    const image = registry.add("bench/small:1", await buildImage());
    const padded = await buildImage({ paddingBytes: 1024 * 1024 });
    const endless = registry.add("bench/endless:1", padded, { stallAfterBytes: 1000 });
    const docker = new Docker({ socketPath: engine.socket });
    await pull(docker, image);
    let made = 0;
    return {
      socket: engine.socket,
      image,
      endless,
      async padded(bytes) {
        made += 1;
        return registry.add(`bench/padded${made}:1`, await buildImage({ paddingBytes: bytes }));
      },
      [Symbol.asyncDispose]: () => things.disposeAsync(),
    };
  } catch (error) {
    await things.disposeAsync();
    if (error instanceof TestbedUnavailableError) throw new CannotRun(error.message);
    throw error;
  }
}

async function pull(docker: Docker, reference: string): Promise<void> {
  const stream = await docker.pull(reference);
  await new Promise<void>((resolve, reject) =>
    docker.modem.followProgress(stream, (error: Error | null) => (error ? reject(error) : resolve())),
  );
}
