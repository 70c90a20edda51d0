// npm run bench: each figure against a named baseline measured in the same run, alternating, in one table.
//   npm run bench -- status start      only these (npm run bench -- --list names them)
//   npm run bench -- --soak 2          the agent's memory after two minutes instead of ten
//   npm run bench -- --json            rows with every round, on stdout
//   npm run bench -- --write           puts the table into docs/performance.md and the ratios into bench/recorded.json
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BENCHES, runBenches } from "./lib/benches.ts";
import { writeRecorded } from "./lib/recorded.ts";
import { machineLine, type Row, tableOf } from "./lib/table.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    list: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
    soak: { type: "string", default: "10" },
  },
});
const unknown = positionals.filter((key) => !BENCHES.some((bench) => bench.key === key));
const soakMinutes = Number(values.soak);
if (unknown.length > 0 || !(soakMinutes > 0)) {
  const keys = BENCHES.map(({ key }) => key).join(", ");
  console.error(
    unknown.length > 0 ? `no bench is named ${unknown.join(", ")}; there are ${keys}` : "--soak takes minutes",
  );
  process.exit(2);
}
if (values.list) {
  for (const { key, figures, onlyByName } of BENCHES)
    console.log(`${key.padEnd(12)} ${figures.join("; ")}${onlyByName === true ? " (only by name)" : ""}`);
  process.exit(0);
}

const machine = machineLine();
const picked = BENCHES.filter(({ key, onlyByName }) =>
  positionals.length > 0 ? positionals.includes(key) : onlyByName !== true,
);
const left = BENCHES.filter(({ onlyByName }) => positionals.length === 0 && onlyByName === true);
const began = performance.now();
const rows: Row[] = [
  ...(picked.length > 1
    ? picked.flatMap(({ key }) => rowsOfItsOwn(key))
    : await runBenches(picked, { isQuick: false, soakMinutes, log: (line) => console.error(`# ${line}`) })),
  ...left.flatMap(({ key, figures }) =>
    figures.map((figure) => ({ key, figure, skipped: `runs only by its name: npm run bench -- ${key}` })),
  ),
];
const minutes = Math.round((performance.now() - began) / 60_000);
const text = `${machine}; ${minutes} minutes\n\n${tableOf(rows)}\n`;
console.log(values.json ? JSON.stringify({ machine, rows }, undefined, 2) : text);
if (values.write) {
  writeTable(text);
  writeRecorded(rows);
}
// Whatever a bench that broke has left open.
process.exit();

/**
 * A bench in a process of its own: what starts programs is slower from one that an earlier bench has made large, and the baselines
 * most of all.
 */
function rowsOfItsOwn(key: string): Row[] {
  const args = [import.meta.filename, key, "--json", "--soak", values.soak];
  const { status, stdout } = spawnSync(process.execPath, args, {
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 2 ** 26,
  });
  if (status !== 0) process.exitCode = 1;
  return (JSON.parse(stdout.toString()) as { rows: Row[] }).rows;
}

/** Between its two marks; rows of a part of the benches are not the last table. */
function writeTable(table: string): void {
  if (positionals.length > 0) {
    console.error("# docs/performance.md stays as it is: it holds the table of all figures");
    return;
  }
  const path = join(import.meta.dirname, "../docs/performance.md");
  const [begin, end] = ["<!-- table -->", "<!-- /table -->"];
  const document = readFileSync(path, "utf8");
  const [from, to] = [document.indexOf(begin), document.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${path} has no ${begin} … ${end} to put the table between`);
  writeFileSync(path, `${document.slice(0, from + begin.length)}\n${table}${document.slice(to)}`);
}
