import { expect, it } from "vitest";
import { GROUPS } from "../../fuzz/groups.ts";
import { runGroups } from "../../fuzz/run-groups.ts";

/** The same inputs each time, so that a red run is a change of ours; `npm run fuzz` looks for new ones. */
const SEED = Number(process.env.GPUNODE_FUZZ_SEED ?? 1);

it("finds no fault in some 20,000 inputs over all that reads what it cannot trust", { timeout: 300_000 }, async () => {
  const results = await runGroups({
    groups: Object.keys(GROUPS),
    processes: 2,
    seed: SEED,
    scale: 0.02,
    // On a machine that is busy there are fewer of them.
    budgetMs: 2_000,
  });
  expect(results.flatMap(({ failures }) => failures)).toEqual([]);
  expect(results.length).toBeGreaterThan(40);
  for (const { target, inputs } of results) expect(inputs, target).toBeGreaterThan(0);
});
