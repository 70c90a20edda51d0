import {
  type DurableEvent,
  type EventBody,
  PreemptionCause,
  type UsageEvent,
  type WorkloadEvent,
} from "../protocol/event.ts";
import type { WorkloadState } from "../protocol/workload.ts";
import { Histogram, type HistogramFigures } from "./histogram.ts";

export const EVENT_KINDS = [
  "workload",
  "preemption",
  "pressure",
  "gpuHealth",
  "usage",
  "node",
  "gap",
] as const satisfies readonly EventBody["kind"][];

/** States in which a workload has ended. */
export const ENDS = [
  "succeeded",
  "failed",
  "stopped",
  "preempted",
  "rejected",
  "lost",
] as const satisfies readonly WorkloadState[];

/** Seconds; a pull from a registry next door to one over a slow line. */
const PULL_BOUNDS = [0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600];
/** Seconds; from a fault, which gives none, to an owner who plans ahead. */
const NOTICE_BOUNDS = [0, 1, 5, 10, 30, 60, 120, 300, 900, 3600];
/** So many kinds of ends are told apart; the codes of this release are some forty. */
const KINDS_MOST = 128;

/** What was counted since the start. */
export interface TallyFigures {
  /** By kind. */
  events: ReadonlyMap<string, number>;
  /** By cause: workloads that ended because somebody took their GPUs. */
  preemptions: ReadonlyMap<string, number>;
  /** Seconds from a notice to the deadline it told. */
  notices: HistogramFigures;
  finished: readonly { state: string; reason: string; count: number }[];
  /** Seconds. */
  pulls: HistogramFigures;
  pulledBytes: number;
  /** By UUID of the GPU or MIG instance. */
  gpuSeconds: ReadonlyMap<string, number>;
  workloadSeconds: number;
  energyJoules: number;
}

/**
 * Counts what happens, where it is written down: every durable event of the node passes `appended`. What it gives is since this process
 * started, as Prometheus expects of counters.
 */
export class Tally {
  readonly #events = new Map<string, number>(EVENT_KINDS.map((kind) => [kind, 0]));
  readonly #preemptions = new Map<string, number>(PreemptionCause.options.map((cause) => [cause, 0]));
  readonly #finished = new Map<string, { state: string; reason: string; count: number }>(
    ENDS.map((state) => [`${state} `, { state, reason: "", count: 0 }]),
  );
  readonly #notices = new Histogram(NOTICE_BOUNDS);
  readonly #pulls = new Histogram(PULL_BOUNDS);
  readonly #pulling = new Map<string, number>();
  readonly #gpuSeconds = new Map<string, number>();
  #pulledBytes = 0;
  #workloadSeconds = 0;
  #energyJoules = 0;

  /** Events that are on the disk, each commit's together. */
  appended(events: readonly DurableEvent[]): void {
    for (const event of events) {
      add(this.#events, event.kind, 1);
      if (event.kind === "usage") this.#used(event);
      else if (event.kind === "workload") this.#moved(event);
      else if (event.kind === "preemption") this.#preempted(event, events);
    }
  }

  /** So many bytes of a workload's image are here; a pull that begins anew is counted from where it was. */
  pulling({ id, generation }: { id: string; generation: number }, currentBytes: number): void {
    const key = `${id} ${generation}`;
    const before = this.#pulling.get(key) ?? 0;
    this.#pulling.set(key, Math.max(before, currentBytes));
    this.#pulledBytes += Math.max(0, currentBytes - before);
  }

  get figures(): TallyFigures {
    return {
      events: this.#events,
      preemptions: this.#preemptions,
      notices: this.#notices.figures,
      finished: [...this.#finished.values()],
      pulls: this.#pulls.figures,
      pulledBytes: this.#pulledBytes,
      gpuSeconds: this.#gpuSeconds,
      workloadSeconds: this.#workloadSeconds,
      energyJoules: this.#energyJoules,
    };
  }

  #used({ from, to, gpus, gpuSeconds, energyJoules = 0 }: UsageEvent): void {
    for (const gpu of gpus) add(this.#gpuSeconds, gpu, gpuSeconds / gpus.length);
    this.#workloadSeconds += Math.max(0, Date.parse(to) - Date.parse(from)) / 1000;
    this.#energyJoules += energyJoules;
  }

  #moved({ workload, generation, state, reason = "", timings }: WorkloadEvent): void {
    if (state === "starting" && timings?.pullMs !== undefined) this.#pulls.observe(timings.pullMs / 1000);
    if (state !== "pulling" && state !== "accepted") this.#pulling.delete(`${workload} ${generation}`);
    if (!(ENDS as readonly string[]).includes(state)) return;
    const code = /^[a-z0-9_]{0,64}$/.test(reason) ? reason : "other";
    const key = `${state} ${code}`;
    const kind = this.#finished.get(key);
    if (kind !== undefined) kind.count += 1;
    else if (this.#finished.size < KINDS_MOST) this.#finished.set(key, { state, reason: code, count: 1 });
  }

  #preempted(event: DurableEvent & { kind: "preemption" }, commit: readonly DurableEvent[]): void {
    const { phase, cause, workloads, deadline, at } = event;
    if (phase === "notice" && deadline !== undefined) {
      this.#notices.observe(Math.max(0, Date.parse(deadline) - Date.parse(at)) / 1000);
    }
    if (phase !== "finished") return;
    // One that came to its own end under notice is told as finished too, and was not taken.
    const taken = workloads.filter((id) =>
      commit.some((other) => other.kind === "workload" && other.workload === id && other.state === "preempted"),
    );
    add(this.#preemptions, cause, taken.length);
  }
}

function add(counts: Map<string, number>, key: string, more: number): void {
  counts.set(key, (counts.get(key) ?? 0) + more);
}
