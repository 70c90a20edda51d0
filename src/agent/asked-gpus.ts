import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { askAhead } from "../gpu/nvidia/ahead.ts";
import { RunTally } from "../gpu/nvidia/run-tally.ts";
import { createSmi, type Smi } from "../gpu/nvidia/runner.ts";
import type { PauseMemory } from "../gpu/sampling-pause.ts";
import { readText } from "../host/read-text.ts";
import { bootId } from "../host/sampler.ts";

/** Disposing ends the first question, where it still stands. */
export interface AskedGpus extends Disposable {
  smi: Smi;
  /** How its runs went. */
  runs: RunTally;
  pause: PauseMemory;
}

/**
 * Asks nvidia-smi for its first document, unless the owner has paused that. A driver takes as long to answer as all the rest of a start: it
 * is asked before that is even loaded.
 */
export function askGpus({ stateDir, nvidia }: Pick<Config, "stateDir" | "nvidia">): AskedGpus {
  const runs = new RunTally();
  const smi = createSmi({ path: nvidia.smi, onRun: (run) => runs.ran(run) });
  const pause = pauseFile(join(stateDir, "sampling-paused"));
  const ahead = pause.get() === bootId() ? undefined : askAhead(smi, ["-q", "-x"]);
  return { smi: ahead ?? smi, runs, pause, [Symbol.dispose]: () => ahead?.[Symbol.dispose]() };
}

/** The owner's pause, in a file of its own: it is asked for before the database is open. */
function pauseFile(path: string): PauseMemory {
  return {
    get: () => readText(path)?.trim(),
    set(of) {
      if (of === undefined) rmSync(path, { force: true });
      else writeFileSync(path, `${of}\n`, { mode: 0o600 });
    },
  };
}
