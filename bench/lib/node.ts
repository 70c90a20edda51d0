import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CoordinatorClient } from "../../src/coordinator/client.ts";
import { startCoordinator } from "../../src/coordinator/server.ts";
import { connectLocal, type LocalClient } from "../../src/local/client.ts";

export interface NodeOptions {
  root: string;
  /** The engine's socket; without one there is no engine. */
  socket?: string;
  /** Path of its nvidia-smi; the simulator where absent. */
  smi?: string;
  /** The simulator's scenario; eight H100 where absent. */
  scenario?: string;
  /** Time between two samples; 1000 where absent. */
  intervalMs?: number;
  /** Further lines of the configuration. */
  more?: string;
  /** Further variables of the daemon. */
  env?: NodeJS.ProcessEnv;
}

/** A coordinator in this process, and the configuration of a daemon that works for it. */
export interface BenchNode extends AsyncDisposable {
  dir: string;
  config: string;
  coordinatorUrl: string;
  client: CoordinatorClient;
  local: LocalClient;
  /** Starts the daemon, which is then the node's own. */
  start(env?: NodeJS.ProcessEnv): ChildProcess;
  /** Resolves when the coordinator has it with its GPUs. */
  connected(): Promise<void>;
  /** Ends the daemon. */
  end(): Promise<void>;
  /** Resolves when the workload is in the state. Throws where it ends in another. */
  reaches(id: string, state: string): Promise<void>;
}

const PATIENCE_MS = 120_000;

export async function benchNode(options: NodeOptions): Promise<BenchNode> {
  const { root, intervalMs = 1000 } = options;
  const things = new AsyncDisposableStack();
  const dir = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
  things.defer(() => rmSync(dir, { recursive: true, force: true }));
  const coordinator = await startCoordinator({
    listen: { host: "127.0.0.1", port: 0 },
    stateDir: join(dir, "c"),
    open: true,
    telemetryIntervalMs: intervalMs,
  });
  things.defer(() => coordinator.close());
  const config = join(dir, "config.toml");
  writeFileSync(
    config,
    `name = "bench"
state_dir = "${join(dir, "s")}"
run_dir = "${join(dir, "r")}"
coordinator = { url = "${coordinator.url}" }
docker = { socket = "${options.socket ?? join(dir, "no-engine.sock")}" }
nvidia = { smi = "${options.smi ?? join(root, "bin/nvidia-smi-sim.js")}" }
policy = { allow_root = true }
network = { isolate_lan = false }
metrics = { listen = "127.0.0.1:0" }
telemetry = { interval_ms = ${intervalMs} }
log = { level = "error" }
${options.more ?? ""}
`,
  );
  let daemon: ChildProcess | undefined;
  const client = new CoordinatorClient(coordinator.apiUrl, {});
  const node: BenchNode = {
    dir,
    config,
    coordinatorUrl: coordinator.url,
    client,
    local: connectLocal(join(dir, "r", "gpunode.sock")),
    start(env = {}) {
      daemon = spawn(process.execPath, [join(root, "bin/gpunode.js"), "run", "--config", config], {
        stdio: ["ignore", "inherit", "inherit"],
        env: { ...process.env, GPUNODE_SIM_SCENARIO: options.scenario ?? "h100x8", ...options.env, ...env },
      });
      return daemon;
    },
    async connected() {
      const until = performance.now() + PATIENCE_MS;
      while (!(await client.nodes()).some(({ connected, gpus }) => connected && gpus)) {
        if (performance.now() > until || (daemon !== undefined && daemon.exitCode !== null))
          throw new Error("the daemon does not connect");
        await sleep(20);
      }
    },
    async end() {
      const ending = daemon;
      daemon = undefined;
      if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null) return;
      const gone = once(ending, "exit");
      ending.kill("SIGTERM");
      await gone;
    },
    async reaches(id, state) {
      for (;;) {
        const view = await client.workload(id);
        if (view.state === state) return;
        if (view.endedAt !== undefined) throw new Error(`${id} is ${view.state}: ${view.message}`);
        await sleep(5);
      }
    },
    async [Symbol.asyncDispose]() {
      await node.end();
      await things.disposeAsync();
    },
  };
  return node;
}
