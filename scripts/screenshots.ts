// Takes the pictures of the page for the README: node scripts/screenshots.ts (npm run screenshots). As root on Debian, or beside a Docker engine.
// The engine, the jobs, the coordinator, the daemon and the browser are real, and it all ends with the script; the GPUs are simulated, and
// the day before was written by the simulator's model in seconds (scripts/past-day.ts). Nothing is made up in the page.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CoordinatorClient } from "../src/coordinator/client.ts";
import { startCoordinator } from "../src/coordinator/server.ts";
import { findEngine } from "../src/demo/engine-api.ts";
import { buildImage } from "../src/demo/image.ts";
import { startPrivateEngine } from "../src/demo/private-engine.ts";
import { startRegistry } from "../src/demo/registry.ts";
import { percentAt } from "../src/gpu/simulator/load.ts";
import { presets } from "../src/gpu/simulator/presets.ts";
import { parseScenario } from "../src/gpu/simulator/scenario.ts";
import { loadIdentity } from "../src/link/identity.ts";
import { connectLocal } from "../src/local/client.ts";
import { openStore } from "../src/store/store.ts";
import { findBrowser, TestBrowser } from "../test/support/browser.ts";
import { PAST_JOBS, RUNNING_JOBS, writePast } from "./past-day.ts";

const root = resolve(import.meta.dirname, "..");
const pictures = join(root, "docs/images");
const HOUR_MS = 3_600_000;
const WIDTH = 1200;
/** Ground left below the last card. */
const MARGIN = 18;
/** The README is read over slow lines, too. */
const MOST_BYTES = 200_000;
const PULL_BYTES_PER_SECOND = 4 * 1024 * 1024;
const PULL_BYTES = 400 * 1024 * 1024;

await using things = new AsyncDisposableStack();
const dir = mkdtempSync(join(tmpdir(), "gpunode-pictures-"));
things.defer(() => rmSync(dir, { recursive: true, force: true }));
const found = await findBrowser(console.log);
if ("lacks" in found) throw new Error(found.lacks);

const engine = await findEngine();
const socket = engine?.socket ?? things.use(await privateEngine()).socket;
const registry = things.use(await startRegistry());
const job = await buildImage({ user: "65534:65534" });
const images = Object.fromEntries(
  ["acme/train:2.4", "acme/vllm:0.7"].map((name) => [name, registry.add(name, job)] as const),
);
const big = registry.add("acme/blender:4.2", await buildImage({ user: "65534:65534", paddingBytes: PULL_BYTES }), {
  bytesPerSecond: PULL_BYTES_PER_SECOND,
});
const coordinator = await startCoordinator({
  listen: { host: "127.0.0.1", port: 0 },
  stateDir: join(dir, "coordinator"),
  open: true,
  telemetryIntervalMs: 1000,
});
things.defer(() => coordinator.close());
const client = new CoordinatorClient(coordinator.apiUrl, {});

const [config, clock, loadFile, scenarioFile] = ["config.toml", "clock", "load.json", "scenario.json"].map((name) =>
  join(dir, name),
) as [string, string, string, string];
const scenario = parseScenario(presets.rtx4090x2);
writeFileSync(scenarioFile, JSON.stringify(presets.rtx4090x2));
writeFileSync(loadFile, "{}");
writeFileSync(
  config,
  `name = "rig-01"
state_dir = "${join(dir, "state")}"
run_dir = "${join(dir, "run")}"
coordinator = { url = "${coordinator.url}" }
docker = { socket = "${socket}" }
nvidia = { smi = "${join(root, "bin/nvidia-smi-sim.js")}", simulated = true }
network = { isolate_lan = false }
metrics = { listen = "127.0.0.1:0" }
`,
);

// Three hours ago the jobs began that run now.
const local = connectLocal(join(dir, "run/gpunode.sock"));
setClock(-RUNNING_JOBS.reduce((most, { fromHours }) => Math.max(most, fromHours), 0));
const before = daemon();
await connected();
for (const { id, fromHours, image } of RUNNING_JOBS.toSorted((a, b) => b.fromHours - a.fromHours)) {
  setClock(-fromHours);
  const command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"];
  await client.submit({ id, image: images[image] ?? "", command, gpus: { count: 1 }, resources: { memoryMiB: 64 } });
  while ((await client.workload(id)).state !== "running") await sleep(100);
}
await end(before);

// What they have done since, and the day before; then an update of the daemon, under which they went on.
const nowMs = Date.now();
await using store = openStore({ path: join(dir, "state/gpunode.db") });
const { sign } = loadIdentity(join(dir, "state/identity.pem"));
writePast({ store, scenario, jobs: PAST_JOBS, running: RUNNING_JOBS, nowMs, sign });
await store[Symbol.asyncDispose]();
setClock(-2);
daemon();
const loading = setInterval(writeLoad, 500);
things.defer(() => clearInterval(loading));
writeLoad();
await connected();
setClock(0);
// It looks at its clock ten times a second.
await sleep(500);
await client.submit({ id: "render-7", image: big, resources: { memoryMiB: 64 } });

const url = (await local.status()).page;
if (url === undefined) throw new Error("the daemon serves no page");
const browser = things.use(await TestBrowser.start(found));
mkdirSync(pictures, { recursive: true });
const pages = await Promise.all(
  (["light", "dark"] as const).map(async (colorScheme) => {
    const { page } = await browser.open(url, { colorScheme, viewport: { width: WIDTH, height: 1000 } });
    return { page, path: join(pictures, `page-${colorScheme}.png`) };
  }),
);
await pages[0]?.page.getByText("signed by this node").waitFor();
// So that the newest minute is in the charts.
await sleep(65_000);
for (const { page, path } of pages) {
  // Down to the workloads: what is below is for those who open it.
  const box = await page.locator("section:has(#workloads)").boundingBox();
  const height = Math.ceil((box?.y ?? 0) + (box?.height ?? 0) + MARGIN);
  await page.screenshot({ path, clip: { x: 0, y: 0, width: WIDTH, height } });
  const { size } = statSync(path);
  console.log(`${path}: ${Math.round(size / 1000)} kB`);
  if (size > MOST_BYTES) throw new Error(`${path} has ${size} bytes, ${MOST_BYTES} is the most`);
}
for (const { id } of RUNNING_JOBS) await client.release(id);
await client.release("render-7");
while ((await local.status()).workloads.some(({ finishedAt }) => finishedAt === undefined)) await sleep(200);

function privateEngine() {
  const packagesDir = join(root, "node_modules/.cache/gpunode-testbed");
  return startPrivateEngine({ dir: join(dir, "engine"), packagesDir, log: console.log, gpuHook: true });
}

/** The daemon's wall clock is so many hours ahead. */
function setClock(hours: number): void {
  writeFileSync(clock, String(hours * HOUR_MS));
}

function daemon(): ChildProcess {
  const args = [
    "--import",
    join(root, "test/faults/clock.mjs"),
    join(root, "bin/gpunode.js"),
    "run",
    "--config",
    config,
  ];
  const child = spawn(process.execPath, args, {
    env: {
      ...process.env,
      GPUNODE_SIM_SCENARIO: scenarioFile,
      GPUNODE_SIM_LOAD_FILE: loadFile,
      GPUNODE_TEST_CLOCK: clock,
    },
    stdio: ["ignore", "ignore", "inherit"],
  });
  things.defer(() => end(child));
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const closed = once(child, "close");
  child.kill("SIGTERM");
  await closed;
}

async function connected(): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    const snapshot = await local.status().catch(() => undefined);
    if (snapshot?.connection.state === "connected") return;
    await sleep(100);
  }
  throw new Error("the daemon did not connect within 30 s");
}

/** Whole or not at all would be better, but a half-written file only says nothing for one sample. */
function writeLoad(): void {
  const entries = RUNNING_JOBS.map(({ gpu, load, vramUsedMiB }) => {
    const utilizationPercent = percentAt(load, Date.now());
    return [String(gpu), { utilizationPercent, vramUsedMiB }] as const;
  });
  writeFileSync(loadFile, JSON.stringify(Object.fromEntries(entries)));
}
