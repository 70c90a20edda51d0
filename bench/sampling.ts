import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { readInventory } from "../src/gpu/nvidia/inventory.ts";
import { createSmi, type Smi } from "../src/gpu/nvidia/runner.ts";
import { watchGpus } from "../src/gpu/watch.ts";

const SAMPLES = 90;
const WARM_UP = 15;
const BASELINE_SAMPLES = 10;
const INTERVAL_MS = 100;
/** Sets for each full read, as in the daemon at 1 Hz; here time goes ten times as fast. */
const SETS_PER_READ = 60;
/** More sets than are taken: the stream alone. */
const NO_READ = 10_000;
const PATIENCE_MS = 60_000;
/** Linux counts process times in these (USER_HZ). */
const TICK_MS = 10;

type TheirReader = (done: (error: unknown, data: unknown) => void) => void;

/** CPU of this process, its live descendants and all that they have reaped, user and system, in milliseconds. */
export function cpuMs(pid: number = process.pid): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const ticks = fields.slice(11, 15).reduce((sum, count) => sum + Number(count), 0);
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
    return ticks * TICK_MS + children.reduce((sum, child) => sum + (child === "" ? 0 : cpuMs(Number(child))), 0);
  } catch {
    // It ended meanwhile: its parent has it.
    return 0;
  }
}

/** As the daemon samples: one stream, and a full read for each `setsPerRead` sets. CPU for each set, once it runs. */
async function ours(smi: Smi, { count, setsPerRead }: { count: number; setsPerRead: number }): Promise<number> {
  // Both sides' readers are warm, as in a process that has run for a while.
  const memory = {};
  for (let read = 0; read < WARM_UP; read += 1) await readInventory(smi, { memory });
  await using watch = await watchGpus(smi, {
    onChange: () => undefined,
    healthIntervalMs: INTERVAL_MS * setsPerRead,
  });
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

/** Prints CPU per sample at 8 GPUs over `rounds` alternating rounds, for each nvidia-smi stood in for. */
export async function benchSampling(simulator: string, document: string, rounds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
  const path = join(folder, "nvidia-smi");
  // node-nvidia-smi asks a shell for "nvidia-smi".
  const { PATH = "" } = process.env;
  process.env.PATH = `${folder}:${PATH}`;
  process.env.GPUNODE_SIM_SCENARIO = "h100x8";
  try {
    const read = createRequire(import.meta.url)("node-nvidia-smi") as TheirReader;
    for (const [name, text] of [
      ["the simulator, whose start is Node's", `#!/bin/sh\nexec '${process.execPath}' '${simulator}' "$@"\n`],
      ["a shell script that prints what the simulator printed", printed(folder, document, simulator)],
    ] as const) {
      writeFileSync(path, text);
      chmodSync(path, 0o755);
      const smi = createSmi({ path });
      const figures: { stream: number; whole: number; their: number }[] = [];
      for (let round = 0; round < rounds; round += 1)
        figures.push({
          stream: await ours(smi, { count: SAMPLES, setsPerRead: NO_READ }),
          whole: await ours(smi, { count: SAMPLES, setsPerRead: SETS_PER_READ }),
          their: await theirs(read, BASELINE_SAMPLES),
        });
      const [stream, whole, their] = (["stream", "whole", "their"] as const).map((key) =>
        median(figures.map((figure) => figure[key])).toFixed(2),
      );
      const factor = (key: "stream" | "whole") =>
        median(figures.map((figure) => figure.their / figure[key])).toFixed(0);
      console.log(
        `CPU per sample of 8 GPUs, user and system, with nvidia-smi, which is ${name}:\n` +
          `  ${their} ms of nvidia-smi -q -x + node-nvidia-smi at the same rate\n` +
          `  ${stream} ms of our stream: 1/${factor("stream")} (target 1/20)\n` +
          `  ${whole} ms with a full read for each ${SETS_PER_READ} sets: 1/${factor("whole")}`,
      );
    }
  } finally {
    process.env.PATH = PATH;
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The same answers without Node: one `cat` for each, and a stream that needs no process beside the shell. */
export function printed(folder: string, document: string, simulator: string): string {
  writeFileSync(join(folder, "xml"), document);
  const ask = (args: string) => `'${process.execPath}' '${simulator}' ${args}`;
  return `#!/bin/bash
D='${folder}'
[ -f $D/help ] || ${ask("--help-query-gpu")} > $D/help
[ -f $D/topo ] || ${ask("topo -m")} > $D/topo
[ -p $D/never ] || mkfifo $D/never
case "$*" in
  "-q -x") exec cat $D/xml ;;
  --help-query-gpu) exec cat $D/help ;;
  "topo -m") exec cat $D/topo ;;
  --query-gpu=uuid,compute_cap*)
    [ -f $D/caps ] || ${ask('"$@"')} > $D/caps
    exec cat $D/caps ;;
  *-lms*)
    rows=$(${ask('"$1" "$2"')})
    exec 9<> $D/never
    ms="\${@: -1}"
    pause=$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))
    while printf '%s\\n' "$rows"; do read -r -t $pause -u 9; done ;;
esac
exit 0
`;
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
