import { PROGRESS_PER_SECOND } from "../protocol/limits.ts";
import type { ProgressReport } from "./needs.ts";
import type { Outbox } from "./outbox.ts";

const PAUSE_MS = 1000 / PROGRESS_PER_SECOND;

/** Progress of pulls: latest wins, and a workload's frames are half a second apart at least. */
export class ProgressFlow implements Disposable {
  readonly #outbox: Outbox;
  /** Workloads that were told of within the last pause, each with what has come since. */
  readonly #resting = new Map<string, { timer: NodeJS.Timeout; latest?: ProgressReport }>();
  #isClosed = false;

  constructor(outbox: Outbox) {
    this.#outbox = outbox;
  }

  offer(report: ProgressReport): void {
    if (this.#isClosed) return;
    const resting = this.#resting.get(report.workload);
    if (resting !== undefined) resting.latest = report;
    else this.#send(report);
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    for (const { timer } of this.#resting.values()) clearTimeout(timer);
    this.#resting.clear();
  }

  #send(report: ProgressReport): void {
    const { workload } = report;
    const isSent = !this.#outbox.isBehind && this.#outbox.send({ type: "progress", ...report });
    const timer = setTimeout(() => {
      const latest = this.#resting.get(workload)?.latest;
      this.#resting.delete(workload);
      if (latest !== undefined) this.#send(latest);
    }, PAUSE_MS);
    this.#resting.set(workload, isSent ? { timer } : { timer, latest: report });
  }
}
