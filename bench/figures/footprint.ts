import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { type Bench, type BenchEngine, CannotRun, type Round } from "../lib/figure.ts";
import { type BenchNode, benchNode } from "../lib/node.ts";
import { cpuMsOf, rssMiB } from "../lib/process.ts";

const WORKLOADS = 8;
const ROUNDS = 5;

/** Memory and CPU of the agent as it is in use: eight GPUs at 1 Hz, eight workloads, for ten minutes. */
export const footprint: Bench = {
  key: "footprint",
  figures: ["agent RSS, 8 GPUs at 1 Hz, 8 workloads", "agent CPU in that state, without nvidia-smi"],
  async run({ root, engine: open, soakMinutes, log }) {
    const { engine, note } = await engineOrNone(open);
    await using node = await benchNode({ root, ...(engine !== undefined && { socket: engine.socket }) });
    const daemon = node.start();
    await node.connected();
    if (engine !== undefined) await runWorkloads(node, engine, WORKLOADS);
    await using bare = bareProcess();
    const { pid = 0 } = daemon;
    const soakMs = soakMinutes * 60_000;
    // The last half in as many windows as there are rounds.
    await sleep(soakMs / 2);
    const [memory, cpu]: [Round[], Round[]] = [[], []];
    for (let round = 0; round < ROUNDS; round += 1) {
      const before = { cpuMs: cpuMsOf(pid), at: performance.now() };
      await sleep(soakMs / 2 / ROUNDS);
      const share = (cpuMsOf(pid) - before.cpuMs) / (performance.now() - before.at);
      cpu.push({ ours: share * 100 });
      memory.push({ ours: rssMiB(pid), baseline: rssMiB(bare.pid) });
      log(`RSS ${rssMiB(pid).toFixed(1)} MiB, CPU ${(share * 100).toFixed(2)} %`);
    }
    const after = `after ${soakMinutes} minutes${soakMinutes < 10 ? " (shortened: 10 are asked for)" : ""}${note}`;
    return [
      {
        figure: this.figures[0] ?? "",
        unit: "MiB",
        baseline: "bare Node that imported ws, dockerode, pino",
        rounds: memory,
        reach: { ratioAtMost: 1 },
        note: after,
      },
      { figure: this.figures[1] ?? "", unit: "% of a core", rounds: cpu, reach: { atMost: 0.7 }, note: after },
    ];
  },
};

async function engineOrNone(open: () => Promise<BenchEngine>): Promise<{ engine?: BenchEngine; note: string }> {
  try {
    return { engine: await open(), note: "" };
  } catch (error) {
    if (!(error instanceof CannotRun)) throw error;
    return { note: `, WITHOUT workloads: ${error.message}` };
  }
}

/** Starts so many that do nothing; the first eight hold a GPU each. */
export async function runWorkloads(node: BenchNode, engine: BenchEngine, count: number, from = 0): Promise<void> {
  const ids = Array.from({ length: count }, (_, n) => `w${from + n}`);
  for (const [n, id] of ids.entries()) {
    const gpus = { count: from + n < 8 ? 1 : 0 };
    const resources = { cpus: 0.01, memoryMiB: 16 };
    await node.client.submit({ id, image: engine.image, command: ["sleep", "100000"], gpus, resources });
    await node.reaches(id, "running");
  }
}

function bareProcess(): AsyncDisposable & { pid: number } {
  const modules = ["ws", "dockerode", "pino"].map((name) => `import ${JSON.stringify(import.meta.resolve(name))};`);
  const code = `${modules.join("\n")}\nsetInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: "inherit" });
  return {
    pid: child.pid ?? 0,
    async [Symbol.asyncDispose]() {
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    },
  };
}
