// Part of .ci/run: fails where a quick figure's ratio is worse than bench/recorded.json by more than its own noise band.
//   node bench/check.ts [file for the counts, JSON]
import { writeFileSync } from "node:fs";
import { BENCHES, runBenches } from "./lib/benches.ts";
import { type Measured, ratios } from "./lib/figure.ts";
import { isWorse, limitOf, readRecorded } from "./lib/recorded.ts";
import { machineLine, short } from "./lib/table.ts";

/** A machine that was busy with something else is given the time to end it. */
const TRIES = 3;

const recorded = readRecorded();
console.log(`${machineLine()}\nquick figures against bench/recorded.json, by the median of alternating rounds:`);
let [passed, failed] = [0, 0];
for (const bench of BENCHES.filter(({ quick }) => quick === true)) {
  let worse: string[] = [];
  for (let tried = 1; tried <= TRIES; tried += 1) {
    const rows = await runBenches([bench], { isQuick: true, soakMinutes: 1, log: () => undefined });
    const verdicts = rows.map((row) => verdictOf(row));
    worse = verdicts.filter(({ isBad }) => isBad).map(({ text }) => text);
    if (worse.length === 0 || tried === TRIES) {
      for (const { text, isBad } of verdicts) {
        console.log(`${isBad ? "WORSE" : "   ok"}  ${text}`);
        if (isBad) failed += 1;
        else passed += 1;
      }
      break;
    }
    console.log(`       again: ${worse.join("; ")}`);
  }
}
const [, , counts] = process.argv;
if (counts !== undefined) writeFileSync(counts, JSON.stringify({ passed, failed }));
console.log(`${passed} figures hold, ${failed} do not`);
process.exit(failed === 0 ? 0 : 1);

function verdictOf(row: Measured | { figure: string; skipped: string }): { text: string; isBad: boolean } {
  if ("skipped" in row) return { text: `${row.figure}: could not be measured: ${row.skipped}`, isBad: true };
  const ratio = ratios(row)?.median ?? Number.NaN;
  const before = recorded[row.figure];
  if (before === undefined) {
    return {
      text: `${row.figure}: ${short(ratio)} × is not recorded; npm run bench -- --write records it`,
      isBad: true,
    };
  }
  const text = `${row.figure}: ${short(ratio)} × ${row.baseline}, recorded ${short(before.ratio)} ×, limit ${short(limitOf(before))} ×`;
  return { text, isBad: isWorse(before, ratio) };
}
