import type { SmiRun } from "./runner.ts";

/** How asking nvidia-smi went, for those who watch over it. Times are milliseconds since the epoch. */
export interface RunFigures {
  /** Of the last one that ended; −1 where it could not be started, or was killed. */
  exitCode?: number;
  /** Full reads that told nothing, since the start. */
  failedReads: number;
  /** The last full read; absent before the first. */
  lastRead?: { isOk: boolean; durationMs: number };
  /** The last full read that told something. */
  lastOkAt?: number;
}

/** Counts the runs of nvidia-smi. A driver that answers that it has no GPU has answered. */
export class RunTally {
  readonly #now: () => number;
  #figures: RunFigures = { failedReads: 0 };

  /** `now`: the wall clock. */
  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  get figures(): RunFigures {
    return this.#figures;
  }

  ran({ args, exitCode, durationMs, problem }: SmiRun): void {
    const before = this.#figures;
    this.#figures = { ...before, exitCode };
    if (args.join(" ") !== "-q -x") return;
    const isOk = problem === undefined || problem === "no_devices";
    this.#figures.lastRead = { isOk, durationMs };
    if (isOk) this.#figures.lastOkAt = this.#now();
    else this.#figures.failedReads = before.failedReads + 1;
  }
}
