import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Problem } from "../protocol/agent-frames.ts";
import { BUG } from "../protocol/errors.ts";
import type { DurableEvent, EventBody } from "../protocol/event.ts";
import type { Journal, JournalRow, Log } from "../workload/needs.ts";
import type { EventLimits, FoldUsage } from "./event-bound.ts";
import { EventLog, type EventLogOptions } from "./event-log.ts";
import { HISTORY_SCHEMA, HistoryTable } from "./history-table.ts";
import { Ledger } from "./ledger.ts";
import { refuseSecrets } from "./no-secrets.ts";
import { openOwnDatabase } from "./open.ts";
import { transaction } from "./sqlite.ts";

const MIGRATIONS = [
  `CREATE TABLE records (key TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE events (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, body TEXT NOT NULL) STRICT;
   CREATE TABLE position (newest INTEGER NOT NULL, acked INTEGER NOT NULL, resumed INTEGER NOT NULL) STRICT;
   INSERT INTO position VALUES (0, 0, 0);
   CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;`,
  `CREATE TABLE usage (
     position INTEGER PRIMARY KEY, workload TEXT NOT NULL, generation INTEGER NOT NULL, ends INTEGER NOT NULL, body TEXT NOT NULL
   ) STRICT;
   CREATE INDEX usage_of ON usage (workload, generation);
   CREATE INDEX usage_ends ON usage (ends);`,
  HISTORY_SCHEMA,
];

export interface StoreOptions {
  /** The SQLite file; its folder is made where it is missing. */
  path: string;
  /** Milliseconds since the epoch. */
  now?: () => number;
  log?: Log;
  /** How much is kept of what no coordinator takes; 100,000 events and 64 MiB where absent. */
  limits?: EventLimits;
  /** Makes one signed usage record of several that follow each other, where there is no room for each. */
  fold?: FoldUsage;
  /** The disk begins to refuse, or takes again: `problems` is another. Called from within a write; must not throw. */
  onProblems?(): void;
}

export type AppendListener = (events: readonly DurableEvent[]) => void;

/**
 * The node's memory in one SQLite file: workload records, the event log, the usage ledger, a few settings, the last day's history.
 * Everything is synchronous and, but for the history, on the disk when it returns. It fills `Journal` of the workload room and `EventLog` of the link.
 */
export class Store implements Journal, AsyncDisposable {
  readonly #problems: readonly Problem[];
  readonly #onProblems: () => void;
  #refusal: Problem | undefined;
  /** Every usage record this node has signed, also those a coordinator has. */
  readonly ledger: Ledger;
  /** What the GPUs did over the last day. */
  readonly history: HistoryTable;
  readonly #db: DatabaseSync;
  readonly #events: EventLog;
  readonly #log: Log | undefined;
  readonly #listeners = new Set<AppendListener>();
  readonly #put: StatementSync;
  readonly #remove: StatementSync;
  readonly #rows: StatementSync;
  readonly #get: StatementSync;
  readonly #set: StatementSync;
  readonly #unset: StatementSync;

  constructor(
    db: DatabaseSync,
    options: EventLogOptions & { log: Log | undefined; problems: readonly Problem[]; onProblems: () => void },
  ) {
    this.#db = db;
    this.#onProblems = options.onProblems;
    this.#log = options.log;
    this.#problems = options.problems;
    this.#events = new EventLog(db, options);
    this.ledger = new Ledger(db, options.now);
    this.history = new HistoryTable(db, (work) => this.#writeLoosely(work));
    this.#put = db.prepare(
      "INSERT INTO records (key, body) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET body = excluded.body",
    );
    this.#remove = db.prepare("DELETE FROM records WHERE key = ?");
    this.#rows = db.prepare("SELECT key, body FROM records ORDER BY key");
    this.#get = db.prepare("SELECT value FROM settings WHERE key = ?");
    this.#set = db.prepare(
      "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    );
    this.#unset = db.prepare("DELETE FROM settings WHERE key = ?");
  }

  /**
   * Rows and events in one transaction: all of it is on the disk when this returns, then the listeners are told. Throws
   * where the disk refuses, or a record carries secrets (TypeError); nothing was recorded then.
   */
  commit(change: { put: JournalRow[]; remove: string[]; events: EventBody[] }): DurableEvent[] {
    refuseSecrets(change.put.map(({ body }) => body));
    const prepared = this.#events.prepare(change.events);
    const events = this.#write(() => {
      for (const key of change.remove) this.#remove.run(key);
      for (const { key, body } of change.put) this.#put.run(key, JSON.stringify(body));
      this.ledger.keep(change.events);
      return this.#events.append(prepared);
    });
    this.#events.settle(events);
    if (events.length > 0) this.#tell(events);
    return events;
  }

  /** What the owner should know of the file: that a damaged one was kept aside, that the disk takes no more. */
  get problems(): readonly Problem[] {
    return this.#refusal === undefined ? this.#problems : [...this.#problems, this.#refusal];
  }

  /** Events without a row. */
  append(bodies: EventBody[]): DurableEvent[] {
    return this.commit({ put: [], remove: [], events: bodies });
  }

  /** All records, by key. One that is no JSON any more comes with the body `undefined`. */
  rows(): JournalRow[] {
    return this.#rows.all().map((row) => ({ key: String(row.key), body: jsonOf(String(row.body)) }));
  }

  get newest(): number {
    return this.#events.newest;
  }

  get oldest(): number {
    return this.#events.oldest;
  }

  after(seq: number, limitEvents: number, limitBytes: number): DurableEvent[] {
    return this.#events.after(seq, limitEvents, limitBytes);
  }

  acked(seq: number): void {
    this.#events.acked(seq);
  }

  resume(acked: number): void {
    this.#events.resume(acked);
  }

  told(seq: number, timeoutMs: number): Promise<boolean> {
    return this.#events.told(seq, timeoutMs);
  }

  /** Called after each commit that brought events. Returns the way to end it. */
  onAppend(listener: AppendListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** A setting; undefined where it was never set. */
  get(key: string): string | undefined {
    const row = this.#get.get(key);
    return row === undefined ? undefined : String(row.value);
  }

  /** `undefined` removes it. */
  set(key: string, value: string | undefined): void {
    this.#write(() => (value === undefined ? this.#unset.run(key) : this.#set.run(key, value)));
  }

  /** Closing twice is no error. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#events.close();
    this.#listeners.clear();
    if (this.#db.isOpen) this.#db.close();
  }

  /** One transaction; what the disk says to it is what `problems` tells. */
  #write<T>(work: () => T): T {
    try {
      const result = transaction(this.#db, work);
      this.#become(undefined);
      return result;
    } catch (error) {
      const { message } = error as Error;
      this.#become({
        code: "state_refused",
        message: `the state database cannot be written (${message}): make room on its disk; running work goes on, and nothing new is taken until then`,
      });
      throw error;
    }
  }

  /** One transaction that the disk may lose with the power; the next one that it may not takes it along. */
  #writeLoosely(work: () => void): void {
    this.#db.exec("PRAGMA synchronous = NORMAL");
    try {
      this.#write(work);
    } finally {
      this.#db.exec("PRAGMA synchronous = FULL");
    }
  }

  #become(refusal: Problem | undefined): void {
    const isOther = refusal?.message !== this.#refusal?.message;
    this.#refusal = refusal;
    if (isOther) this.#onProblems();
  }

  #tell(events: readonly DurableEvent[]): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(events);
      } catch (error) {
        // The commit stands; a listener's failure must not look like its.
        this.#log?.error({ err: error }, `an event was written and could not be told within the agent: ${BUG}`);
      }
    }
  }
}

/**
 * Opens the node's memory, for this process alone. A damaged file is kept aside, reported in `problems` and to `log`, and
 * a new one is started.
 *
 * Throws where another gpunode has it open, where a newer gpunode wrote it, or where the disk refuses.
 */
export function openStore({ path, now = Date.now, log, limits, fold, onProblems = () => {} }: StoreOptions): Store {
  const events = { now, onProblems, ...(limits !== undefined && { limits }), ...(fold !== undefined && { fold }) };
  const { db, setAside } = openOwnDatabase(path, MIGRATIONS, now);
  if (setAside === undefined) return new Store(db, { ...events, log, problems: [] });
  const message = `the state database was damaged and is kept as ${setAside}; a new one was started, so workloads from before are no longer known and their containers are removed; look after the disk`;
  log?.error({ path, setAside }, message);
  return new Store(db, { ...events, log, problems: [{ code: "state_lost", message }] });
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
