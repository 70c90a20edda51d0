// Many workloads through one daemon, one after the other and a few at a time: what does it keep?
//   node bench/cycles.ts [cycles] [at a time]
// Prints RSS, open descriptors and event backlog as it goes, and what is left on the engine at the end. As root on Debian;
// the engine is a private one.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CoordinatorClient } from "../src/coordinator/client.ts";
import { startCoordinator } from "../src/coordinator/server.ts";
import { callEngine } from "../src/demo/engine-api.ts";
import { buildImage } from "../src/demo/image.ts";
import { startPrivateEngine } from "../src/demo/private-engine.ts";
import { startRegistry } from "../src/demo/registry.ts";

const cycles = Number(process.argv[2] ?? 1000);
const atATime = Number(process.argv[3] ?? 4);
const root = resolve(import.meta.dirname, "..");
const dir = mkdtempSync(join(tmpdir(), "gpunode-cycles-"));
const log = (line: string) => console.log(line);

await using things = new AsyncDisposableStack();
things.defer(() => rmSync(dir, { recursive: true, force: true }));
const engine = things.use(
  await startPrivateEngine({
    dir: join(dir, "e"),
    log,
    gpuHook: true,
    packagesDir: join(root, "node_modules/.cache/gpunode-testbed"),
  }),
);
const registry = things.use(await startRegistry());
const image = registry.add("bench/true:1", await buildImage());
const coordinator = await startCoordinator({
  listen: { host: "127.0.0.1", port: 0 },
  stateDir: join(dir, "c"),
  open: true,
});
things.defer(() => coordinator.close());
const client = new CoordinatorClient(coordinator.apiUrl, {});
writeFileSync(
  join(dir, "config.toml"),
  `name = "cycles"
state_dir = "${join(dir, "s")}"
run_dir = "${join(dir, "r")}"
coordinator = { url = "${coordinator.url}" }
docker = { socket = "${engine.socket}" }
nvidia = { smi = "${join(root, "bin/nvidia-smi-sim.js")}" }
policy = { allow_root = true }
network = { isolate_lan = false }
metrics = { listen = "off" }
log = { level = "warn" }
`,
);
const daemon: ChildProcess = spawn(
  process.execPath,
  [join(root, "bin/gpunode.js"), "run", "--config", join(dir, "config.toml")],
  { stdio: ["ignore", "inherit", "inherit"], env: { ...process.env, GPUNODE_SIM_SCENARIO: "h100x8" } },
);
things.defer(async () => {
  daemon.kill("SIGTERM");
  await once(daemon, "exit");
});
while (!(await client.nodes()).some(({ connected, gpus }) => connected && gpus)) await sleep(100);

const figures = () => {
  const status = readFileSync(`/proc/${daemon.pid}/status`, "utf8");
  const rss = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
  return { rssMiB: Math.round(rss * 10) / 10, descriptors: readdirSync(`/proc/${daemon.pid}/fd`).length };
};
const cycle = async (n: number) => {
  const id = `c${n}`;
  await client.submit({ id, image, command: ["true"], gpus: { count: 1 } });
  const end = await client.waitForEnd(id, { intervalMs: 50, signal: AbortSignal.timeout(120_000), onChange: () => {} });
  if (end.state !== "succeeded") throw new Error(`${id} ended ${end.state}: ${JSON.stringify(end.events.at(-1))}`);
};

console.log("cycles  RSS MiB  descriptors");
let next = 0;
let done = 0;
let warm: ReturnType<typeof figures> | undefined;
const report = Math.max(1, Math.floor(cycles / 20));
const worker = async () => {
  while (next < cycles) {
    await cycle(next++);
    done += 1;
    if (done % report === 0) {
      const now = figures();
      if (done >= cycles / 5) warm ??= now;
      console.log(
        `${String(done).padStart(6)} ${String(now.rssMiB).padStart(8)} ${String(now.descriptors).padStart(12)}`,
      );
    }
  }
};
const began = performance.now();
await Promise.all(Array.from({ length: atATime }, worker));
const seconds = (performance.now() - began) / 1000;
await sleep(5000);
const end = figures();
const containers = JSON.parse(
  (await callEngine(engine.socket, { path: "/containers/json?all=1", timeoutMs: 10_000 })).body,
);
const networks = JSON.parse((await callEngine(engine.socket, { path: "/networks", timeoutMs: 10_000 })).body);
console.log(`${cycles} cycles in ${seconds.toFixed(0)} s, ${atATime} at a time`);
console.log(
  `RSS ${warm?.rssMiB} MiB after warm-up, ${end.rssMiB} MiB at the end: ${(end.rssMiB / (warm?.rssMiB ?? 1)).toFixed(2)} ×`,
);
console.log(
  `descriptors ${warm?.descriptors} → ${end.descriptors}; containers left ${containers.length}; networks ${networks.length} (the engine's own 3)`,
);
