import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { CoordinatorClient } from "../../src/coordinator/client.ts";
import { callEngine } from "../../src/demo/engine-api.ts";
import { type PrivateEngine, startPrivateEngine } from "../../src/demo/private-engine.ts";
import { startRegistry } from "../../src/demo/registry.ts";
import { patiently } from "../agent/rig.ts";
import { smallImage } from "../support/engine.ts";
import { FAIR, Network } from "./network.ts";
import { contradictions, type HeldEvent, heldEvents } from "./truth.ts";

const root = resolve(import.meta.dirname, "../..");
const program = join(root, "bin/gpunode.js");
const RECONNECT_MS = 90_000;
const PACKAGES_DIR = join(root, "node_modules/.cache/gpunode-testbed");

/**
 * One coordinator, one network, one node and its engine, each a process (or a proxy) of its own that a test may take out and
 * bring back.
 */
export class World implements AsyncDisposable {
  readonly #things = new AsyncDisposableStack();
  readonly #dir = mkdtempSync(join(tmpdir(), "gpunode-world-"));
  #agent: ChildProcess | undefined;
  #coordinator: ChildProcess | undefined;
  engine!: PrivateEngine;
  network!: Network;
  client!: CoordinatorClient;
  /** An image with a shell. */
  image!: string;
  #apiPort = 0;
  /** What the agents and coordinators of this world wrote. */
  log = "";

  static async open(options: { liveRestore?: boolean; random?: () => number; more?: string } = {}): Promise<World> {
    const world = new World();
    try {
      await world.#build(options);
      return world;
    } catch (error) {
      await world.#things.disposeAsync();
      throw error;
    }
  }

  async #build({
    liveRestore = false,
    random,
    more = "",
  }: {
    liveRestore?: boolean;
    random?: () => number;
    more?: string;
  }) {
    this.#things.defer(() => rmSync(this.#dir, { recursive: true, force: true }));
    this.engine = this.#things.use(
      await startPrivateEngine({
        dir: join(this.#dir, "e"),
        packagesDir: PACKAGES_DIR,
        gpuHook: true,
        liveRestore,
        log: () => undefined,
      }),
    );
    const registry = this.#things.use(await startRegistry());
    this.image = registry.add("world/sh:1", await smallImage());
    this.network = this.#things.use(await Network.start(random));
    this.#things.defer(() => this.killCoordinator());
    await this.startCoordinator();
    this.client = new CoordinatorClient(`http://127.0.0.1:${this.#apiPort}`, {});
    mkdirSync(this.#stateDisk);
    // A disk of its own, small enough to be filled in a moment.
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", this.#stateDisk]);
    this.#things.defer(() => void execFileSync("umount", [this.#stateDisk]));
    this.setClock(0);
    this.#things.defer(() => this.killAgent());
    writeFileSync(
      join(this.#dir, "config.toml"),
      `name = "world"
state_dir = "${join(this.#dir, "s")}"
run_dir = "${join(this.#dir, "r")}"
coordinator = { url = "ws://127.0.0.1:${this.network.port}" }
docker = { socket = "${this.engine.socket}" }
nvidia = { smi = "${join(root, "bin/nvidia-smi-sim.js")}" }
telemetry = { interval_ms = 500 }
network = { isolate_lan = false }
metrics = { listen = "off" }
${more}
`,
    );
    this.startAgent();
    await this.connected();
  }

  startAgent(): void {
    this.#agent = this.#spawn(
      ["run", "--config", join(this.#dir, "config.toml")],
      {
        GPUNODE_SIM_SCENARIO: "rtx4090x2",
        GPUNODE_SIM_SEED: this.#dir,
        // The tests' images name no user.
        GPUNODE_POLICY_ALLOW_ROOT: "true",
        GPUNODE_TEST_CLOCK: join(this.#dir, "clock"),
      },
      ["--import", join(root, "test/faults/clock.mjs")],
    );
  }

  async killAgent(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    await end(this.#agent, signal);
    this.#agent = undefined;
  }

  /** Where it listens stays the same from the first start on: agents dial it through the network. */
  async startCoordinator(): Promise<void> {
    const port = this.#apiPort === 0 ? await freePort() : this.#apiPort;
    this.#coordinator = this.#spawn([
      ...["coordinator", "serve", "--listen", `127.0.0.1:${port}`, "--state", join(this.#dir, "c"), "--open"],
      ...["--heartbeat-seconds", "1", "--lease-seconds", "60", "--telemetry-interval-ms", "500"],
      ...["--public-host", `127.0.0.1:${this.network.port}`],
    ]);
    await patiently(() => (this.log.includes(`127.0.0.1:${port}/api/v1`) ? isListening(port) : undefined));
    this.#apiPort = port;
    this.network.target = port;
  }

  /** Sets the agent's wall clock so far away from the true one; milliseconds. */
  setClock(offsetMs: number): void {
    writeFileSync(join(this.#dir, "clock"), String(offsetMs));
  }

  /** Leaves no byte on the disk of the agent's state. */
  fillDisk(): void {
    const chunk = Buffer.alloc(64 * 1024);
    const file = openSync(join(this.#stateDisk, "filler"), "a");
    try {
      while (true) writeSync(file, chunk);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    } finally {
      closeSync(file);
    }
  }

  get #stateDisk(): string {
    return join(this.#dir, "s");
  }

  /** The agent's state database, as a file. */
  get stateFile(): string {
    return join(this.#stateDisk, "gpunode.db");
  }

  /** Resident memory of the agent in MiB. */
  agentRssMiB(): number {
    const status = readFileSync(`/proc/${this.#agent?.pid}/status`, "utf8");
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
  }

  async killCoordinator(): Promise<void> {
    await end(this.#coordinator, "SIGKILL");
    this.#coordinator = undefined;
  }

  async connected(): Promise<string> {
    const node = await patiently(
      async () => (await this.client.nodes()).find(({ connected, gpus }) => connected && (gpus?.length ?? 0) > 0),
      // The agent's pause between two attempts grows to a minute where sessions break off again and again.
      RECONNECT_MS,
    );
    return node.id;
  }

  async events(): Promise<HeldEvent[]> {
    return await heldEvents(`http://127.0.0.1:${this.#apiPort}`);
  }

  /** Everything back as it should be: the network fair, all processes up, the node connected. */
  async heal(): Promise<void> {
    this.network.weather = FAIR;
    this.setClock(0);
    rmSync(join(this.#stateDisk, "filler"), { force: true });
    if (this.engine.pid === undefined) await this.engine.restart();
    if (this.#coordinator === undefined || this.#coordinator.exitCode !== null) await this.startCoordinator();
    if (this.#agent === undefined || this.#agent.exitCode !== null) this.startAgent();
    await this.connected();
  }

  /** What must hold once everything named has ended. */
  async expectTruth(ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      await patiently(
        async () => ((await this.client.workload(id)).endedAt === undefined ? undefined : true),
        60_000,
      ).catch(async (error: unknown) => {
        throw new Error(
          `${id} did not end: ${JSON.stringify(await this.client.workload(id))}\n${this.log.slice(-4000)}`,
          {
            cause: error,
          },
        );
      });
    }
    // The last events may still be on their way.
    const wrong = await settled(async () => contradictions(await this.events(), { allEnded: true }));
    expect(wrong, this.log.slice(-4000)).toEqual([]);
    const containers = await settled(async () => {
      const { body } = await callEngine(this.engine.socket, { path: "/containers/json?all=true", timeoutMs: 5000 });
      return (JSON.parse(body) as { Names: string[] }[]).map(({ Names }) => Names.join());
    });
    expect(containers).toEqual([]);
  }

  #spawn(args: string[], env: NodeJS.ProcessEnv = {}, preload: string[] = []): ChildProcess {
    const child = spawn(process.execPath, [...preload, program, ...args], {
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const keep = (chunk: Buffer) => {
      this.log = (this.log + chunk.toString()).slice(-200_000);
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    return child;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#things.disposeAsync();
  }
}

/** The list once it is empty, or what is left of it after a while. */
async function settled(look: () => Promise<string[]>): Promise<string[]> {
  const deadline = performance.now() + 15_000;
  while (true) {
    const found = await look();
    if (found.length === 0 || performance.now() > deadline) return found;
    await sleep(100);
  }
}

async function end(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const closed = once(child, "close");
  child.kill(signal);
  await closed;
}

async function freePort(): Promise<number> {
  const { createServer } = await import("node:net");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function isListening(port: number): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(undefined));
  });
}
