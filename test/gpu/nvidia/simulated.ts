import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createSmi, type Smi } from "../../../src/gpu/nvidia/runner.ts";

const simulator = resolve(import.meta.dirname, "../../../src/gpu/simulator/cli.ts");

interface SimulatedSmi extends Disposable {
  readonly smi: Smi;
  /** Resolves when none of its processes is running; rejects after 5 s. */
  gone(): Promise<void>;
}

/** An nvidia-smi that is a program of its own: the simulator, playing a preset or a scenario. */
export function simulatedSmi(scenario: string | object): SimulatedSmi {
  const folder = mkdtempSync(join(tmpdir(), "gpunode-sim-"));
  const path = join(folder, "nvidia-smi");
  const played =
    typeof scenario === "string" ? scenario : JSON.stringify({ startedAt: new Date().toISOString(), ...scenario });
  writeFileSync(path, `#!/bin/sh\nexec '${process.execPath}' '${simulator}' "$@"\n`);
  chmodSync(path, 0o755);
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
    smi: createSmi({ path, env: { ...process.env, GPUNODE_TEST_FOLDER: folder, GPUNODE_SIM_SCENARIO: played } }),
    async gone() {
      for (let tries = 0; running().length > 0; tries += 1) {
        if (tries > 250) throw new Error(`still running: ${running().join(", ")}`);
        await sleep(20);
      }
    },
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}
