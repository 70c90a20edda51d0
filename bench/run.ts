// npm run bench: each figure against a named baseline measured in the same run, alternating, as ratios.
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { join, resolve } from "node:path";
import { readSmiXml } from "../src/gpu/nvidia/xml.ts";

const ROUNDS = 9;
const root = resolve(import.meta.dirname, "..");
const require = createRequire(import.meta.url);
const { parseString } = createRequire(require.resolve("node-nvidia-smi"))("xml2js") as {
  parseString(text: string, done: (error: unknown, tree: unknown) => void): void;
};

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

const figures: Figure[] = [
  {
    name: `reading a document of 8 GPUs (${Math.round(document.length / 1024)} KiB)`,
    ours: () => readSmiXml(document),
    baseline: "xml2js, as node-nvidia-smi uses it",
    theirs: () =>
      parseString(document, (error) => {
        if (error) throw error;
      }),
  },
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
  console.log(`${name.padEnd(48)} ${min} / ${median} / ${max} × ${baseline}`);
}

function timed(work: () => unknown): number {
  const began = performance.now();
  work();
  return performance.now() - began;
}
