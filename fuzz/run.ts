// npm run fuzz: a million inputs over all targets. GPUNODE_FUZZ_SEED repeats a run, _SCALE makes it longer or shorter, _TARGET names a
// target (or a part of its name), _AT one input of it.
import { availableParallelism } from "node:os";
import type { TargetResult } from "./fuzz.ts";
import { GROUPS } from "./groups.ts";
import { runGroups } from "./run-groups.ts";

/** Characters of an input that a terminal can bear; the command repeats the whole. */
const INPUT_SHOWN = 2000;

const env = (name: string) => process.env[`GPUNODE_FUZZ_${name}`] || undefined;
const seed = Number(env("SEED") ?? Date.now() % 1_000_000_007);
const scale = Number(env("SCALE") ?? 1);
const only = env("TARGET");
const at = env("AT");
const processes = Math.min(2, availableParallelism());
if (![seed, Number(at ?? 0)].every(Number.isSafeInteger) || !(scale > 0)) {
  throw new Error("GPUNODE_FUZZ_SEED and _AT are whole numbers, _SCALE is a number above 0");
}

console.log(`seed ${seed}, ${processes} processes, Node ${process.version}\n`);
const began = performance.now();
const results = await runGroups({
  groups: Object.keys(GROUPS),
  processes,
  seed,
  scale,
  ...(only !== undefined && { only }),
  ...(at !== undefined && { at: Number(at) }),
  onResult: tell,
});
const sum = results.reduce((total, result) => total + result.inputs, 0);
const failures = results.flatMap((result) => result.failures);
console.log(
  `\n${sum.toLocaleString("en")} inputs, ${results.length} targets, ${Math.round((performance.now() - began) / 1000)} s, seed ${seed}: ${failures.length} failures`,
);
if (failures.length > 0) process.exitCode = 1;

function tell({ target, inputs, ms, slowestMs, failures }: TargetResult): void {
  const figures = `${inputs.toLocaleString("en").padStart(9)} inputs ${(ms / 1000).toFixed(1).padStart(6)} s`;
  console.log(`${target.padEnd(44)} ${figures}, slowest ${slowestMs.toFixed(0).padStart(4)} ms`);
  for (const { at, error, input } of failures) {
    const again = `GPUNODE_FUZZ_SEED=${seed} GPUNODE_FUZZ_TARGET='${target}' GPUNODE_FUZZ_AT=${at} npm run fuzz`;
    console.log(
      `\n  FAILED ${target}, input ${at}\n  again: ${again}\n  input: ${input.slice(0, INPUT_SHOWN)}\n  ${error.replaceAll("\n", "\n  ")}\n`,
    );
  }
}
