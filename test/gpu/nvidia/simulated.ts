import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createSmi, type Smi } from "../../../src/gpu/nvidia/runner.ts";

const simulator = resolve(import.meta.dirname, "../../../src/gpu/simulator/cli.ts");

export interface SimulatedSmi extends Disposable {
  readonly smi: Smi;
  /** Sets what it plays from now on, for processes started later. */
  play(scenario: string | object): void;
  /** Ids of its processes that are running. */
  running(): number[];
  /** Resolves when none is running; rejects after 5 s. */
  gone(): Promise<void>;
}

/** An nvidia-smi that is a program of its own: the simulator, playing a preset or a scenario. */
export function simulatedSmi(scenario: string | object): SimulatedSmi {
  const folder = mkdtempSync(join(tmpdir(), "gpunode-sim-"));
  const path = join(folder, "nvidia-smi");
  const play = (next: string | object) =>
    writeFileSync(
      join(folder, "scenario"),
      typeof next === "string" ? next : JSON.stringify({ startedAt: new Date().toISOString(), ...next }),
    );
  writeFileSync(
    path,
    `#!/bin/sh\nGPUNODE_SIM_SCENARIO="$(cat '${folder}/scenario')" exec '${process.execPath}' '${simulator}' "$@"\n`,
  );
  chmodSync(path, 0o755);
  play(scenario);
  const running = () =>
    readdirSync("/proc").flatMap((pid) => {
      if (!/^\d+$/.test(pid)) return [];
      try {
        const mine = readFileSync(`/proc/${pid}/environ`, "utf8").includes(`GPUNODE_TEST_FOLDER=${folder}\0`);
        return mine && Number(pid) !== process.pid ? [Number(pid)] : [];
      } catch {
        return [];
      }
    });
  return {
    smi: createSmi({ path, env: { ...process.env, GPUNODE_TEST_FOLDER: folder } }),
    play,
    running,
    async gone() {
      for (let tries = 0; running().length > 0; tries += 1) {
        if (tries > 250) throw new Error(`still running: ${running().join(", ")}`);
        await sleep(20);
      }
    },
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}
