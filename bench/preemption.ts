import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Docker from "dockerode";
import { WebSocket } from "ws";
import { CoordinatorClient } from "../src/coordinator/client.ts";
import { startCoordinator } from "../src/coordinator/server.ts";
import { buildImage } from "../src/demo/image.ts";
import { startPrivateEngine } from "../src/demo/private-engine.ts";
import { startRegistry } from "../src/demo/registry.ts";
import { connectLocal } from "../src/local/client.ts";
import { bootSystemd, canBootSystemd } from "../test/support/booted-systemd.ts";
import { median } from "./sampling.ts";

const NOTICES = 100;
const SHUTDOWNS = 15;
const STOPS = 15;

/**
 * How fast the owner gets a GPU back, in two figures: trigger → notice at the coordinator (p99 below 25 ms), and reclaim → GPU free
 * beside `docker stop` of the same container (300 ms more at most). Needs an engine of its own: root, Debian.
 */
export async function benchPreemption(root: string): Promise<void> {
  await using bench = await Bench.open(root);
  // First, while no download that stalls holds a layer of the image.
  await bench.stops();
  await bench.notices("owner (gpunode reclaim's request on the local socket)", NOTICES, async () => {
    await bench.local.reclaim({ graceSeconds: 0 });
    return async () => void (await bench.local.resume());
  });
  await bench.notices("coordinator (its preempt command)", NOTICES, async (id) => {
    await bench.client.preempt(id, { graceSeconds: 0 });
    return () => undefined;
  });
  await bench.shutdowns();
}

class Bench implements AsyncDisposable {
  readonly #things: AsyncDisposableStack;
  readonly #root: string;
  readonly #dir: string;
  readonly client: CoordinatorClient;
  readonly local: ReturnType<typeof connectLocal>;
  daemon: ChildProcess;
  /** Served without an end: work that pulls it is under way and costs no container. */
  readonly #endless: string;
  readonly #small: string;
  readonly #docker: Docker;
  readonly #socket: string;
  readonly #url: string;
  /** Called with each frame the coordinator has taken. */
  #onFrame: (text: string) => void = () => undefined;

  private constructor(parts: {
    things: AsyncDisposableStack;
    root: string;
    dir: string;
    client: CoordinatorClient;
    images: { endless: string; small: string };
    socket: string;
    url: string;
  }) {
    this.#things = parts.things;
    this.#root = parts.root;
    this.#dir = parts.dir;
    this.client = parts.client;
    this.#endless = parts.images.endless;
    this.#small = parts.images.small;
    this.#docker = new Docker({ socketPath: parts.socket });
    this.#socket = parts.socket;
    this.#url = parts.url;
    this.local = connectLocal(join(this.#dir, "r", "gpunode.sock"));
    this.daemon = this.#spawn();
    // Only the coordinator has web sockets in this process: the daemon is another.
    const { emit } = WebSocket.prototype;
    const onFrame = (text: string) => this.#onFrame(text);
    WebSocket.prototype.emit = function (this: WebSocket, event: string | symbol, ...args: unknown[]) {
      const result = emit.call(this, event, ...args);
      if (event === "message") onFrame(String(args[0]));
      return result;
    } as typeof emit;
    this.#things.defer(() => {
      WebSocket.prototype.emit = emit;
    });
  }

  static async open(root: string): Promise<Bench> {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
    const things = new AsyncDisposableStack();
    things.defer(() => rmSync(dir, { recursive: true, force: true }));
    const packagesDir = join(root, "node_modules/.cache/gpunode-testbed");
    const engine = things.use(
      await startPrivateEngine({ dir: join(dir, "e"), log: () => undefined, gpuHook: true, packagesDir }),
    );
    const registry = things.use(await startRegistry());
    const padded = await buildImage({ paddingBytes: 1024 * 1024 });
    const images = {
      endless: registry.add("bench/endless:1", padded, { stallAfterBytes: 1000 }),
      small: registry.add("bench/small:1", await buildImage()),
    };
    const coordinator = await startCoordinator({
      listen: { host: "127.0.0.1", port: 0 },
      stateDir: join(dir, "c"),
      open: true,
      telemetryIntervalMs: 5000,
    });
    things.defer(() => coordinator.close());
    writeFileSync(
      join(dir, "config.toml"),
      `name = "bench"
state_dir = "${join(dir, "s")}"
run_dir = "${join(dir, "r")}"
coordinator = { url = "${coordinator.url}" }
docker = { socket = "${engine.socket}" }
nvidia = { smi = "${join(root, "bin/nvidia-smi-sim.js")}" }
policy = { allow_root = true }
network = { isolate_lan = false }
metrics = { listen = "off" }
log = { level = "error" }
`,
    );
    const client = new CoordinatorClient(coordinator.apiUrl, {});
    const bench = new Bench({ things, root, dir, client, images, socket: engine.socket, url: coordinator.url });
    await bench.#connected();
    return bench;
  }

  /** Prints how long it takes from the trigger to the coordinator having the notice. */
  async notices(
    name: string,
    rounds: number,
    trigger: (id: string) => Promise<() => void | Promise<void>>,
  ): Promise<void> {
    const took: number[] = [];
    for (let round = -2; round < rounds; round++) {
      const id = `n${name.slice(0, 1)}${round + 2}`;
      await this.client.submit({ id, image: this.#endless, gpus: { count: 1 } });
      await this.#reaches(id, "pulling");
      const noticed = this.#nextFrame('"phase":"notice"');
      const began = performance.now();
      const after = await Promise.all([trigger(id), noticed]);
      if (round >= 0) took.push(after[1] - began);
      await this.#reaches(id, "preempted");
      await after[0]();
    }
    printNotices(name, took);
  }

  /** The same for SIGTERM by a real systemd, counted from the daemon's own word of the signal. */
  async shutdowns(): Promise<void> {
    if (!canBootSystemd) return console.log("trigger to notice, shutdown: not measured, no systemd can be booted here");
    await this.#endDaemon();
    const node = "/usr/local/bin/node";
    await using machine = await bootSystemd([
      { from: this.#root, to: "/opt/gpunode" },
      { from: process.execPath, to: node },
      { from: this.#socket, to: "/run/docker.sock", writable: true },
    ]);
    await machine.run("groupadd", "--non-unique", "--gid", String(statSync(this.#socket).gid), "docker");
    const smi = "/opt/gpunode/bin/nvidia-smi-sim.js";
    const config = `name = "booted"\ncoordinator = { url = "${this.#url}" }\nnvidia = { smi = "${smi}" }\nnetwork = { isolate_lan = false }\nmetrics = { listen = "off" }\n`;
    await machine.write("/etc/gpunode/config.toml", config);
    const took: number[] = [];
    for (let round = -1; round < SHUTDOWNS; round++) {
      if (round < 0) await machine.run(node, "/opt/gpunode/bin/gpunode.js", "service", "install");
      else {
        // So many starts in five minutes are too many for the unit.
        await machine.run("systemctl", "reset-failed", "gpunode.service");
        await machine.run("systemctl", "start", "gpunode.service");
      }
      await this.#connected();
      const id = `d${round + 1}`;
      await this.client.submit({ id, image: this.#endless, gpus: { count: 1 } });
      await this.#reaches(id, "pulling");
      const noticed = this.#nextFrame('"phase":"notice"');
      await machine.run("systemctl", "stop", "gpunode.service");
      const at = performance.timeOrigin + (await noticed);
      const log = await machine.run("journalctl", "--unit=gpunode.service", "--output=cat", "--no-pager");
      const signalled = log.split("\n").findLast((line) => line.includes('"signal":"SIGTERM"')) ?? "{}";
      if (round >= 0) took.push(at - Date.parse((JSON.parse(signalled) as { time: string }).time));
      await this.#reaches(id, "preempted");
    }
    printNotices("shutdown (systemctl stop, from the signal's arrival)", took);
  }

  /** Prints how long a GPU takes to be free beside `docker stop`, alternating; the container ends at once on its signal. */
  async stops(): Promise<void> {
    const [ours, theirs]: [number[], number[]] = [[], []];
    const command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.01; done"];
    for (let round = -1; round < STOPS; round++) {
      const id = `s${round + 1}`;
      await this.client.submit({ id, image: this.#small, command, gpus: { count: 1 } });
      await this.#reaches(id, "running");
      const free = this.#nextFrame('"phase":"finished"');
      const began = performance.now();
      await this.local.reclaim();
      const took = (await free) - began;
      await this.local.resume();
      const bare = await this.#dockerStop(command);
      if (round < 0) continue;
      ours.push(took);
      theirs.push(bare);
    }
    const [own, bare] = [median(ours), median(theirs)];
    console.log(
      `${"reclaim to the GPU being free (told to the coordinator), a job that ends on SIGTERM".padEnd(100)} ${own.toFixed(0)} ms, docker stop ` +
        `${bare.toFixed(0)} ms: ${(own - bare).toFixed(0)} ms more (target 300 ms)`,
    );
  }

  async #dockerStop(command: string[]): Promise<number> {
    const container = await this.#docker.createContainer({ Image: this.#small, Cmd: command });
    await container.start();
    await sleep(300);
    const began = performance.now();
    await container.stop({ t: 10 });
    const took = performance.now() - began;
    await container.remove({ force: true });
    return took;
  }

  #spawn(): ChildProcess {
    return spawn(
      process.execPath,
      [join(this.#root, "bin/gpunode.js"), "run", "--config", join(this.#dir, "config.toml")],
      {
        stdio: ["ignore", "inherit", "inherit"],
        env: {
          ...process.env,
          GPUNODE_SIM_SCENARIO: "h100x8",
          INVOCATION_ID: "bench",
          GPUNODE_SYSTEMD_UNIT: "gpunode.service",
          PATH: `${this.#dir}:${process.env.PATH}`,
        },
      },
    );
  }

  async #connected(): Promise<void> {
    while (!(await this.client.nodes()).some(({ connected, gpus }) => connected && gpus)) await sleep(20);
  }

  async #reaches(id: string, state: string): Promise<void> {
    for (;;) {
      const view = await this.client.workload(id);
      if (view.state === state) return;
      if (view.endedAt !== undefined) throw new Error(`${id} is ${view.state}: ${view.message}`);
      await sleep(5);
    }
  }

  /** When the coordinator has taken a frame with this text, by `performance.now()`. */
  #nextFrame(text: string): Promise<number> {
    return new Promise((resolve) => {
      this.#onFrame = (frame) => {
        if (frame.includes(text)) resolve(performance.now());
      };
    });
  }

  async #endDaemon(): Promise<void> {
    const { daemon } = this;
    if (daemon.exitCode !== null || daemon.signalCode !== null) return;
    const gone = once(daemon, "exit");
    daemon.kill("SIGTERM");
    await gone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#endDaemon();
    await this.#things.disposeAsync();
  }
}

function printNotices(name: string, took: number[]): void {
  took.sort((a, b) => a - b);
  const [p50 = 0, p99 = 0] = [took[Math.floor(took.length / 2)], took[Math.floor(took.length * 0.99)]];
  const what = `trigger to notice at the coordinator, ${name}`;
  const figures = `p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms of ${took.length} (target 25 ms)`;
  console.log(`${what.padEnd(100)} ${figures}`);
}
