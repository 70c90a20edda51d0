import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { findOrUnpack, TestbedUnavailableError } from "../../src/demo/debian-packages.ts";
import { findEngine } from "../../src/demo/engine-api.ts";
import { ENGINE_MARKER } from "../../src/demo/engine-state.ts";
import { type PrivateEngine, startPrivateEngine } from "../../src/demo/private-engine.ts";
import { startDebianRegistry } from "./debian-registry.ts";
import { PACKAGES_DIR } from "./packages-dir.ts";

/** What every test file is told about the engine of this run (`test/support/engine.ts` reads it). */
export interface Testbed {
  /** `private`: ours alone, with the GPU hook; `user`: the machine's, to be left as it was; `none`: see `reason`. */
  readonly engine: "private" | "user" | "none";
  readonly socket?: string;
  /** `127.0.0.1:PORT` of a real registry. */
  readonly registry?: string;
  /** A static busybox to make images of; absent where neither the machine nor Debian's packages have one. */
  readonly busybox?: string;
  /** Why there is no engine or registry. */
  readonly reason?: string;
  /** True where this machine should have had them: tests then fail instead of staying away. */
  readonly broken: boolean;
}

declare module "vitest" {
  interface ProvidedContext {
    testbed: Testbed;
  }
}

/** What Node's `getColorDepth()` goes by besides the terminal: the programs under test shall print the same wherever the suite runs. */
const BENDS_COLOURS = ["CI", "FORCE_COLOR", "NO_COLOR", "NODE_DISABLE_COLORS"];

/**
 * One Docker engine and one registry for the whole run. `GPUNODE_TEST_ENGINE=off` does without (unit tests alone),
 * `GPUNODE_TEST_ENGINE=user` takes the engine that is there, also as root.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  for (const name of BENDS_COLOURS) delete process.env[name];
  // At a dumb one lines are edited otherwise, by readline and by shells.
  process.env.TERM = "xterm-256color";
  const wish = process.env.GPUNODE_TEST_ENGINE ?? "";
  if (wish === "off") {
    project.provide("testbed", { engine: "none", broken: false, reason: "GPUNODE_TEST_ENGINE=off" });
    return async () => undefined;
  }
  const dir = await mkdtemp(join(tmpdir(), "gpunode-test-"));
  const resources = new AsyncDisposableStack();
  resources.defer(() => rm(dir, { recursive: true, force: true }));
  const log = (line: string) => console.log(`test engine: ${line}`);
  try {
    const engine: PrivateEngine | undefined =
      wish === "user"
        ? undefined
        : await startPrivateEngine({ dir, packagesDir: PACKAGES_DIR, gpuHook: true, log }).catch((error: unknown) => {
            if (error instanceof TestbedUnavailableError) return undefined;
            throw error;
          });
    if (engine !== undefined) resources.use(engine);
    const user = engine === undefined ? await findEngine() : undefined;
    const socket = engine?.socket ?? user?.socket;
    if (socket === undefined) {
      throw new TestbedUnavailableError(
        "there is no Docker engine: start Docker, or run the tests as root on Debian or Ubuntu",
      );
    }
    // Where this run is killed, the next one removes its engine, and with the engine's mark on it the registry, too.
    const env = { [ENGINE_MARKER]: dir };
    const registry = await startDebianRegistry({ dir: join(dir, "registry"), packagesDir: PACKAGES_DIR, env, log });
    resources.use(registry);
    const { paths } = await findOrUnpack({ busybox: "busybox-static" }, { dir: PACKAGES_DIR, log });
    const kind = engine === undefined ? "user" : "private";
    project.provide("testbed", { engine: kind, socket, registry: registry.address, ...paths, broken: false });
  } catch (error) {
    await resources.disposeAsync();
    const broken = !(error instanceof TestbedUnavailableError);
    const reason = error instanceof Error ? error.message : String(error);
    console.error(`Tests that need a Docker engine ${broken ? "will fail" : "do not run"}: ${reason}`);
    project.provide("testbed", { engine: "none", broken, reason });
    return async () => undefined;
  }
  // Ctrl-C ends vitest without the teardown below: a process that outlives it then does the work.
  const afterwards = () => {
    const script = join(import.meta.dirname, "remove-abandoned.ts");
    spawn(process.execPath, [script, dir], { detached: true, stdio: "ignore" }).unref();
  };
  process.once("exit", afterwards);
  return async () => {
    await resources.disposeAsync();
    process.off("exit", afterwards);
  };
}
