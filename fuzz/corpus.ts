import { readFileSync } from "node:fs";
import { Writable } from "node:stream";
import { runSimulator } from "../src/gpu/simulator/main.ts";
import { fixtureFiles } from "../test/support/fixtures.ts";

/** What the simulator prints for a command line. */
export async function simulated(preset: string, ...argv: readonly string[]): Promise<string> {
  const chunks: Buffer[] = [];
  const stdout = new Writable({
    write(chunk: Buffer, _encoding, done) {
      chunks.push(chunk);
      done();
    },
  });
  await runSimulator(
    argv,
    { GPUNODE_SIM_SCENARIO: preset, GPUNODE_SIM_NOW: "2026-01-01T00:00:00Z" },
    { stdout, stderr: stdout },
  );
  return Buffer.concat(chunks).toString("utf8");
}

/** Recorded texts of a folder, where the recordings lie beside the checkout; the big ones are cut off, as they are when a pipe breaks. */
export function recorded(folder: string, suffix: string, mostBytes = 24_000): string[] {
  return fixtureFiles(folder, suffix).map((path) => readFileSync(path, "utf8").slice(0, mostBytes));
}
