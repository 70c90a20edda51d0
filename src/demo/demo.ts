import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CoordinatorClient, type WorkloadWithEvents } from "../coordinator/client.ts";
import type { Gpu } from "../protocol/gpu.ts";
import { Children } from "./children.ts";
import { findOrUnpack, findProgram } from "./debian-packages.ts";
import { callEngine, findEngine } from "./engine-api.ts";
import { buildImage } from "./image.ts";
import { startPrivateEngine } from "./private-engine.ts";
import { startRegistry } from "./registry.ts";
import { rootFileSystem } from "./root-layer.ts";
import { takeBack } from "./take-back.ts";
import { gpusInWords, jobLine, summary, telemetryLine } from "./words.ts";

export interface DemoOptions {
  /** Program and first arguments by which gpunode is started: Node and `bin/gpunode.js`. */
  gpunode: readonly string[];
  /** Path of the executable that answers as nvidia-smi does. */
  simulator: string;
  /** True where this machine has GPUs of its own; else they are simulated. */
  hasGpus: boolean;
  /** Told, line by line, what happens. */
  say: (line: string) => void;
  signal: AbortSignal;
}

/** Random data within the image, served slowly, so that its pull takes a moment to watch. */
const PADDING_BYTES = 24 * 1024 * 1024;
const PULL_BYTES_PER_SECOND = 16 * 1024 * 1024;
const UP_WITHIN_MS = 30_000;
const SAMPLE_MS = 500;
const LOOK_EVERY_MS = 250;
const TELEMETRY_EVERY_MS = 1_500;

const GREETING = 'echo "on GPU $NVIDIA_VISIBLE_DEVICES"';
/** The two jobs, with what a simulated GPU shows while they run on it. */
const JOBS = [
  {
    id: "train",
    script: `${GREETING}; for i in 1 2 3 4 5 6; do echo "step $i of 6"; sleep 1; done`,
    load: { utilizationPercent: 97, vramUsedMiB: 18_200 },
  },
  {
    id: "infer",
    script: `${GREETING}; sleep 3; echo "42 requests answered"`,
    load: { utilizationPercent: 54, vramUsedMiB: 9_100 },
  },
] as const;

/**
 * The whole main job on this machine, with real parts: a Docker engine (the one that is there, or as root on Debian a
 * private one), a registry with an image made on the spot, a coordinator, the daemon, two jobs, and a third
 * whose GPU is taken back. All of it is gone afterwards. Resolves to whether all went as it should.
 */
export async function runDemo(asked: DemoOptions): Promise<boolean> {
  const options = { ...asked, hasGpus: asked.hasGpus && (await canAttachGpus()) };
  const { say, signal, hasGpus } = options;
  if (asked.hasGpus && !hasGpus)
    say("gpus         simulated: to attach this machine's own, install Docker and the NVIDIA container toolkit");
  await using things = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), "gpunode-demo-"));
  things.defer(() => rm(dir, { recursive: true, force: true }));
  const engine = await provideEngine(dir, things, options);
  const registry = things.use(await startRegistry({ faults: { bytesPerSecond: PULL_BYTES_PER_SECOND } }));
  const image = registry.add(
    "demo/jobs:1",
    await buildImage({ root: await root(dir, options), paddingBytes: PADDING_BYTES, user: "65534:65534" }),
  );
  say(`registry     ${registry.address}, serving demo/jobs:1 built on the spot`);
  things.defer(() => removeImage(engine.socket, image));

  const port = await freePort();
  const children = things.use(new Children(options.gpunode, dir));
  children.start("coordinator", [
    ...["coordinator", "serve", "--open", "--listen", `127.0.0.1:${port}`, "--state", join(dir, "coordinator")],
  ]);
  const client = new CoordinatorClient(`http://127.0.0.1:${port}`, {});
  await until(async () => (await client.nodes()) !== undefined, { what: "the coordinator", children, signal });
  say(`coordinator  http://127.0.0.1:${port}`);

  const loadFile = join(dir, "load.json");
  const config = join(dir, "config.toml");
  await writeFile(loadFile, "{}");
  await writeFile(config, configText(dir, { port, socket: engine.socket, options }));
  children.start("daemon", ["run", "--config", config], {
    ...(!hasGpus && { GPUNODE_SIM_SCENARIO: "rtx4090x2", GPUNODE_SIM_LOAD_FILE: loadFile }),
  });
  const node = await until(async () => (await client.nodes()).find(({ connected, gpus }) => connected && gpus), {
    what: "the node",
    children,
    signal,
  });
  const gpus = node.gpus ?? [];
  say(`node         ${node.name}: ${gpusInWords(gpus)}${hasGpus ? "" : ", simulated"}\n`);

  for (const { id, script } of JOBS) {
    // On a machine with one GPU the second job runs beside it, without one.
    const count = gpus.length >= JOBS.length || id === JOBS[0].id ? 1 : 0;
    await client.submit({ id, image, command: ["sh", "-c", script], gpus: { count }, resources: { memoryMiB: 256 } });
    say(`$ gpunode coordinator submit --id ${id} --gpus ${count} ${image} …`);
  }
  const jobs = await watch({ client, node: node.id, gpus, say, signal, children, ...(!hasGpus && { loadFile }) });

  say("\nWhat happened:");
  for (const line of summary(jobs)) say(`  ${line}`);
  for (const { id } of JOBS) {
    say(`\n$ gpunode logs ${id}`);
    say((await children.run(["logs", id, "--config", config])).trimEnd());
  }
  const wasTakenBack = await takeBack({ client, image, gpus, children, config, say, signal });
  // A sample later the GPUs are seen to be idle again.
  await sleep(2 * SAMPLE_MS, undefined, { signal });
  for (const command of ["usage", "status"]) {
    say(`\n$ gpunode ${command}\n${(await children.run([command, "--config", config])).trimEnd()}`);
  }
  return wasTakenBack && jobs.every(({ state }) => state === "succeeded");
}

/** A private engine attaches GPUs only where NVIDIA's toolkit is: dockerd looks for its hook on the PATH. */
async function canAttachGpus(): Promise<boolean> {
  return (await findEngine()) !== undefined || (await findProgram("nvidia-container-runtime-hook")) !== undefined;
}

async function provideEngine(
  dir: string,
  things: AsyncDisposableStack,
  { say, signal, hasGpus }: DemoOptions,
): Promise<{ socket: string; isPrivate: boolean }> {
  const found = await findEngine();
  if (found !== undefined) {
    say(`engine       Docker on ${found.socket}, the one that is there`);
    return { ...found, isPrivate: false };
  }
  const engine = await startPrivateEngine({ dir: join(dir, "engine"), log: say, gpuHook: !hasGpus, signal });
  things.use(engine);
  say("engine       a private Docker engine, gone when this ends");
  return { socket: engine.socket, isPrivate: true };
}

/** The image's files: Debian's busybox where it can be had, else this machine's own shell and programs. */
async function root(dir: string, { say, signal }: DemoOptions) {
  try {
    const { paths } = await findOrUnpack(
      { busybox: "busybox-static" },
      { dir: join(dir, "packages"), log: say, signal },
    );
    return await rootFileSystem(paths.busybox === undefined ? {} : { busybox: paths.busybox });
  } catch (error) {
    if (signal.aborted) throw error;
    return await rootFileSystem();
  }
}

function configText(
  dir: string,
  { port, socket, options }: { port: number; socket: string; options: DemoOptions },
): string {
  return [
    'name = "demo-rig"',
    `state_dir = ${JSON.stringify(join(dir, "state"))}`,
    `run_dir = ${JSON.stringify(join(dir, "run"))}`,
    `coordinator = { url = "ws://127.0.0.1:${port}" }`,
    `docker = { socket = ${JSON.stringify(socket)} }`,
    `telemetry = { interval_ms = ${SAMPLE_MS} }`,
    // The jobs are the demo's own, and it leaves the firewall of the machine it is tried on alone.
    "network = { isolate_lan = false }",
    'metrics = { listen = "127.0.0.1:0" }',
    ...(options.hasGpus ? [] : [`nvidia = { smi = ${JSON.stringify(options.simulator)}, simulated = true }`]),
    "",
  ].join("\n");
}

interface Watching {
  client: CoordinatorClient;
  node: string;
  gpus: readonly Gpu[];
  children: Children;
  say: (line: string) => void;
  signal: AbortSignal;
  /** Where the simulated GPUs read their load from. */
  loadFile?: string;
}

/** Tells each new state and, now and then, the telemetry of the GPUs in use, until all jobs have ended. */
async function watch({ client, node, gpus, children, say, signal, loadFile }: Watching): Promise<WorkloadWithEvents[]> {
  const told = new Map<string, string>();
  let nextTelemetry = performance.now() + TELEMETRY_EVERY_MS;
  while (true) {
    await children.requireAlive();
    const jobs = await Promise.all(JOBS.map(({ id }) => client.workload(id)));
    for (const job of jobs) {
      const line = jobLine(job);
      const key = job.state === "pulling" ? line.slice(8) : job.state;
      if (told.get(job.id) !== key) say(line);
      told.set(job.id, key);
    }
    if (loadFile !== undefined) await writeLoad(loadFile, jobs);
    if (jobs.every(({ endedAt }) => endedAt !== undefined)) return jobs;
    if (performance.now() >= nextTelemetry) {
      nextTelemetry = performance.now() + TELEMETRY_EVERY_MS;
      const sample = await client.telemetry(node).catch(() => undefined);
      for (const { index, uuid } of gpus) {
        const holder = jobs.find((job) => job.state === "running" && job.gpus.includes(uuid))?.id;
        const figures = sample?.gpus.find((gpu) => gpu.uuid === uuid);
        if (figures !== undefined && holder !== undefined) say(telemetryLine(index, figures, holder));
      }
    }
    await sleep(LOOK_EVERY_MS, undefined, { signal });
  }
}

/** Whole or not at all: the simulator may read it at any moment. */
async function writeLoad(path: string, jobs: readonly WorkloadWithEvents[]): Promise<void> {
  const running = jobs.filter(({ state }) => state === "running");
  const load = Object.fromEntries(
    running.flatMap(({ id, gpus }) => gpus.map((uuid) => [uuid, JOBS.find((job) => job.id === id)?.load])),
  );
  await writeFile(`${path}.new`, JSON.stringify(load));
  await rename(`${path}.new`, path);
}

async function until<T>(
  look: () => Promise<T | undefined | false>,
  { what, children, signal }: { what: string; children: Children; signal: AbortSignal },
): Promise<T> {
  const deadline = performance.now() + UP_WITHIN_MS;
  while (performance.now() < deadline) {
    await children.requireAlive();
    const found = await look().catch(() => undefined);
    if (found !== undefined && found !== false) return found;
    await sleep(100, undefined, { signal });
  }
  throw new Error(`${what} was not up within ${UP_WITHIN_MS / 1000} s`);
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() =>
        address !== null && typeof address === "object" ? resolve(address.port) : reject(new Error("no port")),
      );
    });
  });
}

/** On an engine that stays, nothing of the demo does. */
async function removeImage(socket: string, image: string): Promise<void> {
  const path = `/images/${encodeURIComponent(image)}?force=1`;
  await callEngine(socket, { method: "DELETE", path, timeoutMs: 10_000 }).catch(() => undefined);
}
