import { type FuzzOptions, fuzzGroup } from "./fuzz.ts";
import { GROUPS } from "./groups.ts";

/** A group in a process of its own, which can be ended where an input never ends. */
const { group, ...options } = JSON.parse(process.argv[2] ?? "{}") as { group: string } & Omit<FuzzOptions, "onInput">;
const open = GROUPS[group];
if (open === undefined) throw new Error(`there is no group "${group}"`);
let told = 0;
const onInput = (target: string, at: number) => {
  // A message for each input of a fast target would cost more than the input.
  const now = performance.now();
  if (now - told < 50) return;
  told = now;
  process.send?.({ target, at });
};
const results = await fuzzGroup(open, { ...options, onInput });
process.send?.({ results }, () => process.disconnect());
