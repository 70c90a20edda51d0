import type { EventBody, UsageEvent } from "../protocol/event.ts";
import type { GpuTelemetry } from "../protocol/gpu.ts";
import { signUsage, type UnsignedUsage } from "../protocol/usage.ts";
import { CounterDeltas, type Counters } from "./counter-deltas.ts";
import type { Journal, Log } from "./needs.ts";
import { recordKey, type WorkloadRecord } from "./record.ts";
import { isTerminal } from "./state.ts";
import { UsageWindow } from "./usage-window.ts";

/** A usage record is written so often while a workload runs. */
const RECORD_EVERY_MS = 60_000;
/** An end is known this much after it happened at most, while an agent is there to see it. */
const SEEN_WITHIN_MS = 3_000;

/** What has been written of usage before. */
export interface UsageLedger {
  last(workload: string, generation: number): UsageEvent | undefined;
  sum(workload: string, generation: number): Counters;
}

export interface MeterDoors {
  journal: Pick<Journal, "commit">;
  ledger: UsageLedger;
  /** Ed25519 with the node's key. */
  sign(bytes: Uint8Array): Buffer;
  /** The wall clock, milliseconds since the epoch. */
  now(): number;
  /** The clock that only passes; milliseconds. */
  steady(): number;
  log: Log;
}

/** A workload that is being metered. */
interface Metered {
  record: WorkloadRecord;
  /** Where the next record begins: in the record's own words, and by the steady clock. */
  from: { wallMs: number; steadyMs: number };
  window: UsageWindow;
  counters: CounterDeltas;
  /** Length of the final record, once the end is known. */
  finalMs?: number;
}

/**
 * Writes what each workload uses: a signed record every minute and one at its end, each beginning where the one before ended. The
 * ledger is the truth of where that was, so neither a kill of the agent nor a reboot makes a gap or counts a second twice. Lengths go by
 * the steady clock; the wall clock only names where the first record begins.
 *
 *     startedAt ──record──┬──record──┬── … ──┬──final──┤ finishedAt
 */
export class Meter implements Disposable {
  readonly #doors: MeterDoors;
  readonly #metered = new Map<string, Metered>();
  readonly #timer: NodeJS.Timeout;

  constructor(doors: MeterDoors, { intervalMs = RECORD_EVERY_MS }: { intervalMs?: number } = {}) {
    this.#doors = doors;
    this.#timer = setInterval(() => this.record(), intervalMs);
    this.#timer.unref();
  }

  /** True while something runs whose use of GPUs is metered: samples are wanted then. */
  get isMetering(): boolean {
    return [...this.#metered.values()].some(({ record }) => record.gpus.length > 0);
  }

  /** Takes up what an earlier agent left: what runs goes on, what has ended without a final record gets it. Call once, at the start. */
  restore(records: readonly WorkloadRecord[]): void {
    for (const record of records) {
      this.#begin(record);
      if (isTerminal(record.state)) this.#finish(record, { wasSeen: false });
    }
  }

  /** A record changed; call after each commit. */
  changed(record: WorkloadRecord): void {
    const metered = this.#metered.get(recordKey(record));
    if (metered !== undefined) metered.record = record;
    else if (!isTerminal(record.state)) this.#begin(record);
    if (isTerminal(record.state)) this.#finish(record, { wasSeen: true });
  }

  /** A set of samples of the GPUs, as it comes. */
  sampled(samples: readonly GpuTelemetry[]): void {
    const now = this.#doors.steady();
    for (const { window } of this.#metered.values()) window.sampled(samples, now);
  }

  /** What the engine counted of a container since its start. */
  counted(containerId: string, counters: Counters): void {
    for (const metered of this.#metered.values()) {
      if (metered.record.containerId === containerId) metered.counters.read(counters);
    }
  }

  /** Writes a record of all that runs, now. */
  record(): void {
    for (const metered of this.#metered.values()) {
      if (isTerminal(metered.record.state)) this.#finish(metered.record, { wasSeen: true });
      else this.#write(metered, { lengthMs: this.#elapsed(metered), final: false });
    }
  }

  /** Writes what there is, so that the next agent goes on from here. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.record();
    this.#metered.clear();
  }

  /** Meters it from where its last record ended; does nothing where it has not started, is metered already, or has its final record. */
  #begin(record: WorkloadRecord): void {
    const { now, steady, ledger } = this.#doors;
    const { startedAt } = record;
    if (startedAt === undefined || this.#metered.has(recordKey(record))) return;
    const last = ledger.last(record.id, record.generation);
    if (last?.final === true) return;
    // Where the wall clock said "started", the steady clock said this.
    const startedSteady = record.startedSteady ?? steady() - Math.max(0, now() - startedAt);
    const wallMs = last === undefined ? startedAt : Date.parse(last.to);
    this.#metered.set(recordKey(record), {
      record,
      from: { wallMs, steadyMs: startedSteady + (wallMs - startedAt) },
      window: new UsageWindow(record.gpus),
      counters: new CounterDeltas(last === undefined ? undefined : ledger.sum(record.id, record.generation), {
        mayHaveRestarted: record.restarts > 0,
      }),
    });
  }

  #elapsed({ from }: Metered): number {
    return Math.max(0, Math.round(this.#doors.steady() - from.steadyMs));
  }

  /** The end as the engine tells it, where that can be; by the clock that only passes where it cannot. */
  #finish(record: WorkloadRecord, { wasSeen }: { wasSeen: boolean }): void {
    const key = recordKey(record);
    const metered = this.#metered.get(key);
    if (metered === undefined) return;
    metered.finalMs ??= this.#finalLength(metered, record, wasSeen);
    if (this.#write(metered, { lengthMs: metered.finalMs, final: true })) this.#metered.delete(key);
  }

  #finalLength(metered: Metered, record: WorkloadRecord, wasSeen: boolean): number {
    const elapsed = this.#elapsed(metered);
    const told = Math.round((record.finishedAt ?? this.#doors.now()) - metered.from.wallMs);
    // A wall clock that was set meanwhile shows in an end that lies far from where it was seen.
    const isTrusted = !wasSeen || Math.abs(elapsed - told) <= SEEN_WITHIN_MS;
    return isTrusted ? Math.min(Math.max(0, told), elapsed) : elapsed;
  }

  /** True where it is on the disk; where the disk refuses, the next record covers this one's time too. */
  #write(metered: Metered, { lengthMs, final }: { lengthMs: number; final: boolean }): boolean {
    const { record, from, window, counters } = metered;
    const toMs = from.wallMs + lengthMs;
    const usage: UnsignedUsage = {
      kind: "usage",
      workload: record.id,
      generation: record.generation,
      from: new Date(from.wallMs).toISOString(),
      to: new Date(toMs).toISOString(),
      gpus: [...record.gpus],
      gpuSeconds: (lengthMs * record.gpus.length) / 1000,
      ...window.figures(lengthMs),
      ...counters.figures(),
      final,
    };
    try {
      const event: EventBody = signUsage(usage, this.#doors.sign);
      this.#doors.journal.commit({ put: [], remove: [], events: [event] });
    } catch (error) {
      this.#doors.log.error(
        { workload: record.id, err: error },
        "a usage record could not be written; trying again, and nothing is lost meanwhile: make room on the disk of state_dir",
      );
      return false;
    }
    metered.from = { wallMs: toMs, steadyMs: from.steadyMs + lengthMs };
    window.clear();
    counters.clear();
    return true;
  }
}
