import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { CoordinatorClient, type WorkloadWithEvents } from "../../src/coordinator/client.ts";
import { type Coordinator, startCoordinator } from "../../src/coordinator/server.ts";
import type { Snapshot } from "../../src/local/snapshot.ts";
import { containersLeft, engineIsPrivate, engineSocket } from "../support/engine.ts";

const root = resolve(import.meta.dirname, "../..");
const program = join(root, "bin/gpunode.js");

export interface RigOptions {
  /** The simulator's, as JSON; two RTX 4090 where absent. */
  scenario?: string;
  /** Further lines of the configuration. */
  more?: string;
  /** Further keys of its section "coordinator", where it has one. */
  coordinator?: string;
  /** Further variables of the daemon. */
  env?: NodeJS.ProcessEnv;
  /** Goes before the daemon's command line. */
  under?: readonly string[];
  /** The engine attaches no GPUs: they are only named. */
  simulated?: boolean;
  /** The engine's socket; default: the run's engine. */
  socket?: string;
  /** The network section; default: workloads are not isolated. */
  network?: string;
  /** Where the local page is served; default: nowhere. */
  listen?: string;
  /** Makes the coordinator's port known where the daemon runs. */
  relay?(port: number): Promise<void>;
  /** File with the milliseconds by which its wall clock is off (test/faults/clock.mjs). */
  clock?: string;
}

/** One machine that lends GPUs: the real daemon on the real engine, with simulated GPUs. */
export class Rig implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), "gpunode-rig-"));
  readonly config = join(this.dir, "config.toml");
  readonly scenario = join(this.dir, "scenario.json");
  /** All that the daemons of this rig wrote. */
  log = "";
  #daemon: ChildProcess | undefined;

  constructor(options: RigOptions & { url?: string; smi?: string }) {
    this.#env = { ...options.env, ...(options.clock !== undefined && { GPUNODE_TEST_CLOCK: options.clock }) };
    this.#under = options.under ?? [];
    writeFileSync(this.scenario, options.scenario ?? "");
    this.#scenario = options.scenario === undefined ? "rtx4090x2" : this.scenario;
    writeFileSync(
      this.config,
      `name = "rig"
state_dir = "${join(this.dir, "state")}"
run_dir = "${join(this.dir, "run")}"
${options.url === undefined ? "" : `coordinator = { url = "${options.url}"${options.coordinator === undefined ? "" : `, ${options.coordinator}`} }`}
docker = { socket = "${options.socket ?? engineSocket()}" }
nvidia = { smi = "${options.smi ?? join(root, "bin/nvidia-smi-sim.js")}", simulated = ${!engineIsPrivate || options.simulated === true} }
telemetry = { interval_ms = 200 }
network = { ${options.network ?? "isolate_lan = false"} }
metrics = { listen = "${options.listen ?? "off"}" }
${options.more ?? ""}
`,
    );
  }

  readonly #scenario: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #under: readonly string[];

  /** `killAt` names the point at which it dies by SIGKILL (test/faults/kill-at.mjs). */
  start({ killAt }: { killAt?: string } = {}): void {
    const preloads = [
      ...(killAt === undefined ? [] : ["kill-at.mjs"]),
      ...(this.#env.GPUNODE_TEST_CLOCK === undefined ? [] : ["clock.mjs"]),
    ].flatMap((name) => ["--import", join(root, "test/faults", name)]);
    const command = [...this.#under, process.execPath, ...preloads, program, "run", "--config", this.config];
    const child = spawn(command[0] ?? "", command.slice(1), {
      env: {
        ...process.env,
        GPUNODE_SIM_SCENARIO: this.#scenario,
        GPUNODE_SIM_SEED: this.dir,
        // The tests' images name no user.
        GPUNODE_POLICY_ALLOW_ROOT: "true",
        ...this.#env,
        ...(killAt !== undefined && { GPUNODE_TEST_KILL_AT: killAt }),
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const keep = (chunk: Buffer) => {
      this.log += chunk.toString();
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    this.#daemon = child;
  }

  /** Ends the daemon and returns its exit code; null after SIGKILL. */
  async end(signal: NodeJS.Signals): Promise<number | null> {
    const daemon = this.#daemon;
    this.#daemon = undefined;
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return daemon?.exitCode ?? null;
    const closed = once(daemon, "close");
    daemon.kill(signal);
    await closed;
    return daemon.exitCode;
  }

  /** Resolves when the daemon is gone by itself; with the signal that ended it. */
  async gone(): Promise<NodeJS.Signals | null> {
    const daemon = this.#daemon;
    if (daemon !== undefined && daemon.exitCode === null && daemon.signalCode === null) await once(daemon, "close");
    this.#daemon = undefined;
    return daemon?.signalCode ?? null;
  }

  /** One command of the owner's. */
  gpunode(...args: string[]): { status: number | null; stdout: string; stderr: string } {
    const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args, "--config", this.config]);
    return { status, stdout: stdout.toString(), stderr: stderr.toString() };
  }

  status(): Snapshot {
    return JSON.parse(this.gpunode("status", "--json").stdout) as Snapshot;
  }

  /** The snapshot once it is as wanted. */
  async until(wanted: (snapshot: Snapshot) => boolean): Promise<Snapshot> {
    return await patiently(async () => {
      const snapshot = this.status();
      return wanted(snapshot) ? snapshot : undefined;
    });
  }

  /** Process id of the daemon. */
  get pid(): number {
    return this.#daemon?.pid ?? 0;
  }

  get nodeId(): string {
    return /"node":"([a-z2-7]{26})"/.exec(this.log)?.[1] ?? "";
  }

  async #containersGone(nodeId: string): Promise<void> {
    const label = `org.gpunode.node=${nodeId}`;
    const isGone = async () => ((await containersLeft(label)).length === 0 ? true : undefined);
    // What is there all the same is found below.
    await patiently(isGone, 5_000).catch(() => undefined);
  }

  /** A clean end: exit code 0 in time, and no container of this node's left. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { nodeId } = this;
    const running = this.#daemon !== undefined;
    // An end is told before its container is removed, and a daemon that leaves leaves that to the next one.
    if (running && nodeId !== "") await this.#containersGone(nodeId);
    const code = await this.end("SIGTERM");
    rmSync(this.dir, { recursive: true, force: true });
    if (running) expect(code, this.log).toBe(0);
    if (nodeId !== "") expect(await containersLeft(`org.gpunode.node=${nodeId}`)).toEqual([]);
  }
}

/** A rig with the reference coordinator, connected. */
export class Site implements AsyncDisposable {
  readonly rig: Rig;
  readonly client: CoordinatorClient;
  #coordinator: Coordinator;

  static async open(options: RigOptions & { killAt?: string } = {}): Promise<Site> {
    const stateDir = mkdtempSync(join(tmpdir(), "gpunode-site-"));
    const coordinator = await startCoordinator(coordinatorOptions(stateDir, 0));
    await options.relay?.(Number(new URL(coordinator.url).port));
    const site = new Site(coordinator, new Rig({ ...options, url: coordinator.url }), stateDir);
    try {
      site.rig.start(options);
      await site.connected();
      return site;
    } catch (error) {
      await site[Symbol.asyncDispose]().catch(() => undefined);
      throw error;
    }
  }

  readonly #stateDir: string;

  get apiUrl(): string {
    return this.#coordinator.apiUrl;
  }

  constructor(coordinator: Coordinator, rig: Rig, stateDir: string) {
    this.#coordinator = coordinator;
    this.rig = rig;
    this.#stateDir = stateDir;
    this.client = new CoordinatorClient(coordinator.apiUrl, {});
  }

  /** The coordinator ends; `comeBack` starts it again on the same port and state. */
  async goAway(): Promise<void> {
    await this.#coordinator.close();
  }

  async comeBack(): Promise<void> {
    const port = Number(new URL(this.apiUrl).port);
    this.#coordinator = await startCoordinator(coordinatorOptions(this.#stateDir, port));
  }

  async connected() {
    return await patiently(async () => (await this.client.nodes()).find(({ connected, gpus }) => connected && gpus));
  }

  /** The workload once it is in this state, or over. */
  async reaches(id: string, state: string): Promise<WorkloadWithEvents> {
    return await patiently(async () => {
      const view = await this.client.workload(id);
      return view.state === state ? view : undefined;
    });
  }

  async ends(id: string): Promise<WorkloadWithEvents> {
    return await this.client.waitForEnd(id, {
      intervalMs: 50,
      signal: AbortSignal.timeout(60_000),
      onChange: () => undefined,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.rig[Symbol.asyncDispose]();
    } finally {
      await this.#coordinator.close();
      rmSync(this.#stateDir, { recursive: true, force: true });
    }
  }
}

function coordinatorOptions(stateDir: string, port: number) {
  return { listen: { host: "127.0.0.1", port }, stateDir, open: true, telemetryIntervalMs: 200 };
}

/** What the workload went through, and how its last event tells the end. */
export function course({ events }: WorkloadWithEvents) {
  const own = events.filter(({ kind }) => kind === "workload");
  return { states: own.map(({ state }) => state), last: own.at(-1) ?? ({} as Record<string, unknown>) };
}

export async function patiently<T>(look: () => Promise<T | undefined> | T | undefined, timeoutMs = 30_000): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let problem: unknown;
  while (performance.now() < deadline) {
    try {
      const found = await look();
      if (found !== undefined) return found;
    } catch (error) {
      problem = error;
    }
    await sleep(50);
  }
  throw new Error("it did not come to that in time", { cause: problem });
}

export function everythingIn(dir: string): string {
  const { stdout } = spawnSync("sh", ["-c", 'find "$0" -type f -exec cat {} +', dir], { maxBuffer: 64 * 1024 * 1024 });
  return stdout.toString("latin1");
}
