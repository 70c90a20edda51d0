// Prints "N passed, N failed" from vitest's JSON report; whatever stopped the run before a test counts as one failure.
import { existsSync, readFileSync } from "node:fs";

const [, , path, status] = process.argv;
const report =
  path && existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : { numPassedTests: 0, numFailedTests: 0 };
const broken = status !== "0" && report.numFailedTests === 0 ? 1 : 0;
console.log(`${report.numPassedTests} passed, ${report.numFailedTests + broken} failed`);
