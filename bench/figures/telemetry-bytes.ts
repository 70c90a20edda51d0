import { type Bench, CannotRun, type Round } from "../lib/figure.ts";
import { onFrames } from "../lib/frames.ts";
import { benchNode } from "../lib/node.ts";
import { simulated } from "../lib/smi.ts";

const FRAMES = 9;
const PATIENCE_MS = 60_000;

/** What a sample costs on the wire beside the document nvidia-smi would print for it. */
export const telemetryBytes: Bench = {
  key: "telemetry",
  figures: ["telemetry of one sample, 8 GPUs, no compression"],
  quick: true,
  async run({ root, simulator }) {
    await using node = await benchNode({ root, intervalMs: 200 });
    const rounds: Round[] = [];
    const enough = Promise.withResolvers<void>();
    using _listening = onFrames(({ direction, text }) => {
      if (direction !== "received" || !text.includes('"type":"telemetry"')) return;
      const { gpus } = JSON.parse(text) as { gpus: unknown[] };
      if (gpus.length !== 8) return;
      rounds.push({ ours: Buffer.byteLength(text), baseline: Buffer.byteLength(simulated(simulator, "-q", "-x")) });
      if (rounds.length >= FRAMES) enough.resolve();
    });
    node.start();
    const timer = setTimeout(() => enough.reject(new CannotRun(`only ${rounds.length} frames came`)), PATIENCE_MS);
    await enough.promise.finally(() => clearTimeout(timer));
    return [
      {
        figure: this.figures[0] ?? "",
        unit: "bytes",
        baseline: "nvidia-smi -q -x",
        rounds: rounds.slice(0, FRAMES),
        reach: { ratioAtMost: 0.02 },
      },
    ];
  },
};
