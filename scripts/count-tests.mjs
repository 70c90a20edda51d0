// Prints "N passed, N failed" from vitest's JSON report and the counts of bench/check.ts; whatever stopped the run before a test counts
// as one failure.
//   node scripts/count-tests.mjs REPORT STATUS [COUNTS]
import { existsSync, readFileSync } from "node:fs";

const [, , reportPath, status, countsPath] = process.argv;
const read = (path) => (path && existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : {});
const { numPassedTests = 0, numFailedTests = 0 } = read(reportPath);
const { passed = 0, failed = 0 } = read(countsPath);
const known = numFailedTests + failed;
const broken = status !== "0" && known === 0 ? 1 : 0;
console.log(`${numPassedTests + passed} passed, ${known + broken} failed`);
