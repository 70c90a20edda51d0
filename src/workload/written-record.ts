import { BUG } from "../protocol/errors.ts";
import type { EventBody } from "../protocol/event.ts";
import type { WorkloadState } from "../protocol/workload.ts";
import type { Journal, Log } from "./needs.ts";
import { eventOf, pendingNotice, recordKey, type StopOrder, type WorkloadRecord } from "./record.ts";
import { isTerminal, mayFollow } from "./state.ts";

/** The disk refused a record; nothing was done, and the step is tried again. */
export class JournalRefused extends Error {}

export interface RecordDoors {
  journal: Journal;
  log: Log;
  now(): number;
  /** The record changed; called after the commit. */
  changed(record: WorkloadRecord): void;
}

/**
 * A workload's record, which changes only by a commit: on the disk, together with the events that tell it, before anybody sees it.
 * Every change throws `JournalRefused` where the disk refuses, and nothing has changed then.
 */
export class WrittenRecord {
  readonly #doors: RecordDoors;
  #record: WorkloadRecord;

  constructor(record: WorkloadRecord, doors: RecordDoors) {
    this.#record = record;
    this.#doors = doors;
  }

  get current(): WorkloadRecord {
    return this.#record;
  }

  /** The order to end. Throws where there is none: only steps of an end ask for it. */
  get order(): StopOrder {
    if (this.#record.stop === undefined) throw new Error("a stop step without a stop order");
    return this.#record.stop;
  }

  /** Takes over a record that somebody else has committed. */
  adopt(record: WorkloadRecord): void {
    this.#record = record;
    this.tellChanged();
  }

  save(changes: Partial<WorkloadRecord>, events: readonly EventBody[] = []): void {
    this.replace({ ...this.#record, ...changes }, events);
  }

  /** The next state, told by an event. Throws where it may not follow. */
  move(state: WorkloadState, changes: Partial<WorkloadRecord>, events: readonly EventBody[] = []): void {
    if (!mayFollow(this.#record.state, state)) {
      throw new Error(`a workload cannot go from ${this.#record.state} to ${state}`);
    }
    const { healthy, ...record } = this.#record;
    // What has ended is neither healthy nor unhealthy.
    const verdict = healthy === undefined || isTerminal(state) ? {} : { healthy };
    const next = { ...record, ...verdict, ...changes, state };
    this.replace(next, [eventOf(next), ...events]);
    const { id, generation, reason, exitCode, message } = next;
    const why = isTerminal(state) && message !== undefined ? `: ${message}` : "";
    this.#doors.log.info({ workload: id, generation, state, reason, exitCode }, `workload ${state}${why}`);
  }

  /** A terminal state; where it was preempted, the preemption's end with it. */
  end(ending: Partial<WorkloadRecord> & { state: WorkloadState }): void {
    const { state, ...changes } = ending;
    const { id, gpus, stop } = this.#record;
    // One that came to its own end while it was under notice: that is over too.
    const cause = stop?.preemption?.cause ?? pendingNotice(this.#record)?.cause;
    const finished: EventBody[] =
      cause === undefined ? [] : [{ kind: "preemption", phase: "finished", cause, workloads: [id], gpus }];
    this.move(state, { ...changes, finishedAt: changes.finishedAt ?? this.#doors.now() }, finished);
  }

  replace(next: WorkloadRecord, events: readonly EventBody[]): void {
    try {
      this.#doors.journal.commit({ put: [{ key: recordKey(next), body: next }], remove: [], events: [...events] });
    } catch (cause) {
      throw new JournalRefused("the state database refused a write", { cause });
    }
    this.#record = next;
    this.tellChanged();
  }

  /** The commit stands, whatever those who are told make of it. */
  tellChanged(): void {
    try {
      this.#doors.changed(this.#record);
    } catch (error) {
      this.#doors.log.error(
        { err: error, workload: this.#record.id },
        `a change of a workload could not be told within the agent: ${BUG}`,
      );
    }
  }
}
