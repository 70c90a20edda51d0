import { type ErrorCode, GpunodeError } from "../protocol/errors.ts";
import { check } from "../protocol/parse.ts";
import { Workload } from "../protocol/workload.ts";
import type { Journal, Log } from "./needs.ts";
import { recordKey } from "./record.ts";
import type { Runner } from "./runner.ts";
import { isTerminal } from "./state.ts";
import { stopOrder } from "./stop-order.ts";

/** Refusals that pass by themselves: they are no end of a workload that a `sync` lists. */
const PASSING: ReadonlySet<ErrorCode> = new Set(["engine_unavailable", "draining"]);

export interface DesiredSetDoors {
  journal: Journal;
  log: Log;
  runners(): readonly Runner[];
  /** Takes a workload in; throws `GpunodeError` where it can't be. */
  assign(workload: Workload): void;
  /** Tells a workload's end before it began. Throws where the disk refuses. */
  reject(workload: Workload, error: GpunodeError): void;
  /** False while nothing can be taken anyway: draining, or the engine is away. */
  takesAnything(): boolean;
  /** Does what one entry needs; its failure is logged and harms no other. True where it was done. */
  attempt(fields: object, act: () => void): boolean;
  /** A record of this key is there. */
  isKnown(key: string): boolean;
}

/**
 * What the coordinator wants here: its last `sync`, and what it assigned and released since. Brings the node to it, and tries again
 * what could not be done at once.
 */
export class DesiredSet {
  readonly #doors: DesiredSetDoors;
  /** Ids the coordinator wants; undefined before the first `sync`. */
  #wanted: Set<string> | undefined;
  /** Wanted by the last `sync` and not possible then. */
  #waiting: Workload[] = [];
  /** Why, as the log has it; by id, since the last `sync`. */
  readonly #told = new Map<string, string>();
  /** Entries of a `sync` that could not be read, already told. */
  readonly #unreadable = new Set<string>();

  constructor(doors: DesiredSetDoors) {
    this.#doors = doors;
  }

  /**
   * The complete set. What is not in it ends, what matches stays, what is missing starts; an entry that can't be taken is told by a
   * `rejected` event and harms no other. What could not be done now is tried again with `retry`.
   */
  replace(entries: readonly unknown[]): void {
    const parsed = entries.map((entry, index) => check(Workload, entry, `workloads[${index}]`));
    this.#wanted = new Set(entries.flatMap((entry) => idOf(entry) ?? []));
    this.#waiting = [];
    this.#told.clear();
    this.#endUnwanted();
    for (const [index, result] of parsed.entries()) {
      if (result.ok) this.#take(result.value);
      else this.#doors.attempt({ index }, () => this.#rejectUnreadable(entries[index], result.problem.message));
    }
  }

  /** It was assigned beside the last `sync`. */
  add(id: string): void {
    this.#wanted?.add(id);
  }

  /** It was released. */
  delete(id: string): void {
    this.#waiting = this.#waiting.filter((workload) => workload.id !== id);
    this.#wanted?.delete(id);
  }

  /** True where it is wanted and has not begun. */
  isWaiting(id: string): boolean {
    return this.#waiting.some((workload) => workload.id === id);
  }

  /** undefined before the first `sync`: nobody knows then. */
  wants(id: string): boolean | undefined {
    return this.#wanted?.has(id);
  }

  /** Tries what the last `sync` asked for and could not be done then. */
  retry(): void {
    this.#endUnwanted();
    if (this.#waiting.length === 0 || !this.#doors.takesAnything()) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const workload of waiting) this.#take(workload);
  }

  #take(workload: Workload): void {
    const fields = { workload: workload.id };
    try {
      this.#doors.assign(workload);
    } catch (error) {
      // What has yet to be told to end may hold what this one needs: no refusal is final before that.
      const isFinal = error instanceof GpunodeError && !PASSING.has(error.code) && this.#unwanted().length === 0;
      if (isFinal && this.#doors.attempt(fields, () => this.#doors.reject(workload, error))) return;
      // The engine is away, the node drains or the disk refuses: these pass. It stays wanted and is tried again.
      const before = this.#told.get(workload.id);
      const level = before === String(error) ? "debug" : "warn";
      this.#doors.log[level]({ ...fields, err: error }, "a wanted workload cannot be taken now; trying again");
      this.#told.set(workload.id, String(error));
      this.#waiting.push(workload);
    }
  }

  /** What lives, was not listed by the last `sync`, and has not been told to end. */
  #unwanted(): Runner[] {
    const wanted = this.#wanted;
    if (wanted === undefined) return [];
    return this.#doors
      .runners()
      .filter(({ record }) => !wanted.has(record.id) && record.stop === undefined && !isTerminal(record.state));
  }

  #endUnwanted(): void {
    for (const runner of this.#unwanted()) {
      const { record } = runner;
      this.#doors.attempt({ workload: record.id }, () => runner.order(stopOrder(record, "not_assigned")));
    }
  }

  #rejectUnreadable(entry: unknown, message: string): void {
    const id = idOf(entry);
    const generation = (entry as { generation?: unknown } | null)?.generation;
    if (id === undefined || typeof generation !== "number" || !Number.isInteger(generation) || generation < 0) {
      this.#doors.log.warn(
        {},
        `a workload that the coordinator wants here cannot be read and has no usable id: ${message}; tell its operator`,
      );
      return;
    }
    const key = recordKey({ id, generation });
    if (this.#unreadable.has(key) || this.#doors.isKnown(key)) return;
    this.#doors.journal.commit({
      put: [],
      remove: [],
      events: [{ kind: "workload", workload: id, generation, state: "rejected", reason: "invalid_spec", message }],
    });
    this.#unreadable.add(key);
  }
}

function idOf(entry: unknown): string | undefined {
  const id = (entry as { id?: unknown } | null)?.id;
  return typeof id === "string" && Workload.shape.id.safeParse(id).success ? id : undefined;
}
