import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { readInventory } from "../../src/gpu/nvidia/inventory.ts";
import { createSmi } from "../../src/gpu/nvidia/runner.ts";
import { watchGpus } from "../../src/gpu/watch.ts";
import { asDaemon, measuredAsDaemon } from "../lib/as-daemon.ts";
import type { Bench, Measured, Round } from "../lib/figure.ts";
import { cpuMsOfTree } from "../lib/process.ts";
import { printedSmi, simulatorAsSmi } from "../lib/smi.ts";

const ROUNDS = 5;
const SAMPLES = 90;
const WARM_UP = 15;
const BASELINE_SAMPLES = 10;
const INTERVAL_MS = 100;
/** Sets for each full read, as in the daemon at 1 Hz; here time goes ten times as fast. */
const SETS_PER_READ = 60;
const PATIENCE_MS = 60_000;

type TheirReader = (done: (error: unknown, data: unknown) => void) => void;

const cpuMs = () => cpuMsOfTree(process.pid);

/** CPU per sample of eight GPUs, agent and nvidia-smi together, beside starting `nvidia-smi -q -x` for each. */
export const sampling: Bench = {
  key: "sampling",
  figures: [
    "CPU per sample of 8 GPUs, printed by a shell script",
    "CPU per sample of 8 GPUs, printed by the simulator",
  ],
  quick: true,
  async run({ simulator, isQuick }) {
    const printed = await measured(this.figures[0] ?? "", (folder) => printedSmi(folder, simulator, INTERVAL_MS));
    const note = "nvidia-smi is a script that does nothing but print: the worst case";
    if (isQuick) return [{ ...printed, note }];
    const simulated = await measured(this.figures[1] ?? "", (folder) => simulatorAsSmi(folder, simulator));
    return [
      { ...printed, note },
      { ...simulated, reach: { ratioAtMost: 1 / 20 }, note: "nvidia-smi costs its start, as the real one does" },
    ];
  },
};

async function measured(figure: string, makeSmi: (folder: string) => string): Promise<Measured> {
  const folder = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
  // node-nvidia-smi asks a shell for "nvidia-smi".
  const { PATH = "" } = process.env;
  process.env.PATH = `${folder}:${PATH}`;
  process.env.GPUNODE_SIM_SCENARIO = "h100x8";
  try {
    const path = makeSmi(folder);
    const read = createRequire(import.meta.url)("node-nvidia-smi") as TheirReader;
    const rounds: Round[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      rounds.push({ baseline: await theirs(read, BASELINE_SAMPLES), ours: asDaemon(import.meta.url, "ours", path) });
    }
    return { figure, unit: "ms", baseline: "spawn -q -x + node-nvidia-smi", rounds };
  } finally {
    process.env.PATH = PATH;
    rmSync(folder, { recursive: true, force: true });
  }
}

/** As the daemon samples: one stream, and a full read for each `SETS_PER_READ` sets. CPU for each set, once it runs. */
async function ours(path: string): Promise<number> {
  const smi = createSmi({ path });
  const count = SAMPLES;
  // Both sides' readers are warm, as in a process that has run for a while.
  const memory = {};
  for (let read = 0; read < WARM_UP; read += 1) await readInventory(smi, { memory });
  const watching = watchGpus(smi, { onChange: () => undefined, healthIntervalMs: INTERVAL_MS * SETS_PER_READ });
  await using watch = await watching;
  let seen = 0;
  let before = 0;
  for await (const set of watch.samples({ intervalMs: INTERVAL_MS, signal: AbortSignal.timeout(PATIENCE_MS) })) {
    if (set.length !== 8) throw new Error(`${set.length} GPUs in a set: ${JSON.stringify(watch.inventory.problems)}`);
    seen += 1;
    if (seen === WARM_UP) before = cpuMs();
    if (seen === WARM_UP + count) break;
  }
  const used = cpuMs() - before;
  if (seen < WARM_UP + count) throw new Error(`only ${seen} sets came: ${JSON.stringify(watch.inventory.problems)}`);
  return used / count;
}

/** nvidia-smi -q -x started anew for each sample and read by node-nvidia-smi, at the same rate. CPU for each. */
async function theirs(read: TheirReader, count: number): Promise<number> {
  const before = cpuMs();
  for (let seen = 0; seen < count; seen += 1) {
    const next = sleep(INTERVAL_MS);
    await new Promise<void>((resolve, reject) => read((error) => (error ? reject(error) : resolve())));
    await next;
  }
  await reaped();
  return (cpuMs() - before) / count;
}

/** What a child used is counted when it is reaped: another child's end shows that this has been done. */
function reaped(): Promise<void> {
  return new Promise((resolve) => spawn("true").once("close", () => resolve()));
}

await measuredAsDaemon(import.meta.url, { ours });
