// npm run bench: each figure against a named baseline measured in the same run, alternating, as ratios.
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { join, resolve } from "node:path";
import { readSmiXml } from "../src/gpu/nvidia/xml.ts";
import { grownToB200 } from "./document.ts";
import { benchLatency } from "./latency.ts";
import { benchPreemption } from "./preemption.ts";
import { benchSampling } from "./sampling.ts";

const ROUNDS = 9;
const root = resolve(import.meta.dirname, "..");
const require = createRequire(import.meta.url);
const { parseString } = createRequire(require.resolve("node-nvidia-smi"))("xml2js") as {
  parseString(text: string, options: object, done: (error: unknown, tree: unknown) => void): void;
};
/** Those of node-nvidia-smi. */
const xml2jsOptions = { explicitArray: false, trim: true };

interface Figure {
  name: string;
  ours: () => unknown;
  baseline: string;
  theirs: () => unknown;
}

const sim = (...args: string[]) =>
  execFileSync(process.execPath, [join(root, "bin/nvidia-smi-sim.js"), ...args], {
    env: { ...process.env, GPUNODE_SIM_SCENARIO: "h100x8" },
    maxBuffer: 64 * 1024 * 1024,
  }).toString();
const gpunode = (...args: string[]) => execFileSync(process.execPath, [join(root, "bin/gpunode.js"), ...args]);
const document = sim("-q", "-x");
const b200 = grownToB200(document);
if (readSmiXml(b200).gpus.length !== 8) throw new Error("the grown document is no document of 8 GPUs");

const reading = (text: string, what: string): Figure => ({
  name: `reading ${what} (${Math.round(text.length / 1024)} KiB)`,
  ours: () => readSmiXml(text),
  baseline: "xml2js, as node-nvidia-smi uses it",
  theirs: () =>
    parseString(text, xml2jsOptions, (error) => {
      if (error) throw error;
    }),
});
const figures: Figure[] = [
  reading(document, "8 × H100"),
  reading(b200, "8 × the size of a B200, clocks unread; target < 0.40"),
  {
    name: "start of gpunode --version",
    ours: () => gpunode("--version"),
    baseline: "node -e 0",
    theirs: () => execFileSync(process.execPath, ["-e", "0"]),
  },
  {
    name: "simulator: nvidia-smi -q -x of 8 GPUs",
    ours: () => sim("-q", "-x"),
    baseline: "node -e 0",
    theirs: () => execFileSync(process.execPath, ["-e", "0"]),
  },
];

console.log(
  `${cpus().length} × ${cpus()[0]?.model}, Node ${process.version}, ${ROUNDS} alternating rounds, ratio min / median / max`,
);
for (const { name, ours, baseline, theirs } of figures) {
  const ratios: number[] = [];
  for (let round = -2; round < ROUNDS; round++) {
    const ratio = timed(ours) / timed(theirs);
    // The first two rounds warm caches up.
    if (round >= 0) ratios.push(ratio);
  }
  ratios.sort((a, b) => a - b);
  const [min, median, max] = [ratios[0], ratios[Math.floor(ROUNDS / 2)], ratios.at(-1)].map((ratio) =>
    ratio?.toFixed(2),
  );
  console.log(`${name.padEnd(76)} ${min} / ${median} / ${max} × ${baseline}`);
}

const simulator = join(root, "bin/nvidia-smi-sim.js");
await benchSampling(simulator, document, 3);
await benchLatency(root, simulator);
await benchPreemption(root);

function timed(work: () => unknown): number {
  const began = performance.now();
  work();
  return performance.now() - began;
}
