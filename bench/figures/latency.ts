import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Telemetry } from "../../src/protocol/agent-frames.ts";
import { startEcho } from "../lib/echo.ts";
import { type Bench, quantile, type Round } from "../lib/figure.ts";
import { onFrames } from "../lib/frames.ts";
import { benchNode } from "../lib/node.ts";

const ROUNDS = 5;
const FRAMES = 60;
const WARM_UP = 20;
const INTERVAL_MS = 100;
const PATIENCE_MS = 60_000;

/** Microseconds of the clock that all processes of the machine share; kept small enough for a MHz column. */
const STAMP = "Number(process.hrtime.bigint() / 1000n % 1000000000n)";
const stamp = () => Number((process.hrtime.bigint() / 1000n) % 1_000_000_000n);
/** Clocks of a full read are none of a stamp. */
const LEAST_STAMP = 1_000_000;

/** How long a set of samples is on its way from nvidia-smi's write to the coordinator having taken it. */
export const latency: Bench = {
  key: "latency",
  figures: ["sample: nvidia-smi's write to the coordinator, p50"],
  async run({ root, simulator }) {
    await using node = await benchNode({ root, intervalMs: INTERVAL_MS });
    await using echo = await startEcho();
    let took: number[] = [];
    let bytes = 0;
    using _listening = onFrames(({ direction, text }) => {
      if (direction !== "received" || !text.startsWith("{")) return;
      const now = stamp();
      const printed = Telemetry.safeParse(JSON.parse(text)).data?.gpus[0]?.memoryClockMHz;
      if (printed === undefined || printed < LEAST_STAMP) return;
      bytes = text.length;
      took.push((now - printed) / 1000);
    });
    const folder = join(node.dir, "smi");
    mkdirSync(folder);
    const smi = join(folder, "nvidia-smi");
    writeFileSync(smi, stampingSmi(simulator));
    chmodSync(smi, 0o755);
    node.start({ GPUNODE_NVIDIA_SMI: smi });
    const frames = async (count: number) => {
      took = [];
      const until = performance.now() + PATIENCE_MS;
      while (took.length < count) {
        if (performance.now() > until) throw new Error(`only ${took.length} frames came`);
        await sleep(50);
      }
      return took;
    };
    await frames(WARM_UP);
    const rounds: Round[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const ours = quantile(await frames(FRAMES), 0.5);
      const bare = await echo.roundTrips(FRAMES, { size: bytes, pauseMs: INTERVAL_MS / 5 });
      rounds.push({ ours, baseline: quantile(bare, 0.5) / 2 });
    }
    return [
      {
        figure: this.figures[0] ?? "",
        unit: "ms",
        baseline: "bare ws, one way",
        rounds,
        reach: { atMost: 20 },
        note: `8 GPUs, ${bytes} bytes, loopback, three processes`,
      },
    ];
  },
};

/**
 * An nvidia-smi whose stream says in the memory clock of the first GPU when it was printed: all rows of a set in one write, as
 * nvidia-smi flushes them. Everything else is asked of the simulator.
 */
function stampingSmi(simulator: string): string {
  return `#!${process.execPath}
const { spawnSync } = require("node:child_process");
const args = process.argv.slice(2);
const ask = (more) => spawnSync(process.execPath, [${JSON.stringify(simulator)}, ...more], { maxBuffer: 1 << 26 }).stdout;
if (!args.includes("-lms")) process.stdout.write(ask(args));
else {
  const fields = args[0].replace("--query-gpu=", "").split(",");
  const rows = ask(args.slice(0, 2)).toString().trim().split("\\n").map((row) => row.split(", "));
  setInterval(() => {
    rows[0][fields.indexOf("clocks.mem")] = String(${STAMP});
    process.stdout.write(rows.map((row) => row.join(", ") + "\\n").join(""));
  }, Number(args.at(-1)));
}
`;
}
