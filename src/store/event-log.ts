import type { DatabaseSync, StatementSync } from "node:sqlite";
import { DurableEvent, type EventBody } from "../protocol/event.ts";
import { transaction } from "./sqlite.ts";

/** A message of an event is cut to this many characters, so that an event always fits into a frame. */
const MAX_MESSAGE = 4096;

/**
 * The node's durable events: numbered from 1 without a hole, never the same number twice, kept until acked. The rows on
 * disk are always those from `acked + 1` to `newest`.
 *
 * `append` runs within a transaction of the store; only `settle`, after the commit, makes its numbers true. A transaction
 * that was rolled back leaves nothing behind, and its numbers are given again.
 */
export class EventLog {
  readonly #db: DatabaseSync;
  readonly #now: () => number;
  readonly #insert: StatementSync;
  readonly #select: StatementSync;
  readonly #delete: StatementSync;
  readonly #move: StatementSync;
  readonly #waiting = new Set<{ seq: number; settle: (told: boolean) => void }>();
  #newest: number;
  #acked: number;
  /** False until a coordinator has said once what it holds of this log. */
  #resumed: boolean;

  constructor(db: DatabaseSync, now: () => number) {
    this.#db = db;
    this.#now = now;
    this.#insert = db.prepare("INSERT INTO events (seq, at, body) VALUES (?, ?, ?)");
    this.#select = db.prepare("SELECT seq, at, body FROM events WHERE seq > ? ORDER BY seq");
    this.#delete = db.prepare("DELETE FROM events WHERE seq <= ?");
    this.#move = db.prepare("UPDATE position SET newest = ?, acked = ?, resumed = ?");
    const position = db.prepare("SELECT newest, acked, resumed FROM position").get();
    this.#newest = Number(position?.newest ?? 0);
    this.#acked = Number(position?.acked ?? 0);
    this.#resumed = position?.resumed === 1;
  }

  /** `seq` of the last event; 0 where there never was one. */
  get newest(): number {
    return this.#newest;
  }

  /** `seq` of the first event still held: `newest + 1` where all have been acked, 0 where there never was one. */
  get oldest(): number {
    return this.#newest === 0 ? 0 : this.#acked + 1;
  }

  /** Within a transaction: writes events behind the newest. */
  append(bodies: readonly EventBody[]): DurableEvent[] {
    if (bodies.length === 0) return [];
    const at = new Date(this.#now()).toISOString();
    const events = bodies.map((body, index) => {
      const fitting = withMessageCut(body);
      const seq = this.#newest + index + 1;
      this.#insert.run(seq, at, JSON.stringify(fitting));
      return { seq, at, ...fitting };
    });
    this.#move.run(this.#newest + bodies.length, this.#acked, Number(this.#resumed));
    return events;
  }

  /** The transaction of an `append` has been committed. */
  settle(events: readonly DurableEvent[]): void {
    this.#newest = events.at(-1)?.seq ?? this.#newest;
  }

  /**
   * Events behind `seq`, in order: at most `limitEvents`, and at most `limitBytes` of JSON, but one at least where there is
   * one. A row that this version cannot read is told as a `gap` of its own.
   */
  after(seq: number, limitEvents: number, limitBytes: number): DurableEvent[] {
    const events: DurableEvent[] = [];
    let bytes = 0;
    for (const row of this.#select.iterate(seq)) {
      const event = eventOf(Number(row.seq), String(row.at), String(row.body));
      bytes += Buffer.byteLength(JSON.stringify(event)) + 1;
      if (events.length > 0 && bytes > limitBytes) break;
      events.push(event);
      if (events.length >= limitEvents) break;
    }
    return events;
  }

  /** The coordinator holds all up to and with `seq`: they are let go. Throws RangeError beyond `newest`. */
  acked(seq: number): void {
    if (seq > this.#newest) throw new RangeError(`event ${seq} has not been written; the newest is ${this.#newest}`);
    if (seq <= this.#acked) return;
    transaction(this.#db, () => {
      this.#delete.run(seq);
      this.#move.run(this.#newest, seq, Number(this.#resumed));
    });
    this.#acked = seq;
    this.#tell();
  }

  /**
   * A session begins; the coordinator holds all up to `acked`. Where that is more than this log ever told it, the log
   * before this one was lost: what waits here is numbered anew, behind what the coordinator holds.
   */
  resume(acked: number): void {
    const isLost = acked > this.#newest || (!this.#resumed && acked > 0);
    if (!isLost) {
      if (!this.#resumed) this.#move.run(this.#newest, this.#acked, 1);
      this.#resumed = true;
      this.acked(acked);
      return;
    }
    const shift = acked - this.#acked;
    transaction(this.#db, () => {
      // By way of negative numbers: in place, a row could meet the old number of the next.
      this.#db.exec(`UPDATE events SET seq = -(seq + ${shift}); UPDATE events SET seq = -seq`);
      this.#move.run(this.#newest + shift, acked, 1);
    });
    for (const waiter of this.#waiting) waiter.seq += shift;
    this.#newest += shift;
    this.#acked = acked;
    this.#resumed = true;
  }

  /** Resolves with true when `seq` is acked, with false after `timeoutMs` or when the log closes; never rejects. */
  told(seq: number, timeoutMs: number): Promise<boolean> {
    if (seq <= this.#acked) return Promise.resolve(true);
    return new Promise((resolve) => {
      const settle = (told: boolean) => {
        clearTimeout(timer);
        this.#waiting.delete(waiter);
        resolve(told);
      };
      const timer = setTimeout(() => settle(false), timeoutMs);
      const waiter = { seq, settle };
      this.#waiting.add(waiter);
    });
  }

  /** Sends home those who wait. The database is its owner's to close. */
  close(): void {
    for (const { settle } of [...this.#waiting]) settle(false);
  }

  #tell(): void {
    for (const { seq, settle } of [...this.#waiting]) if (seq <= this.#acked) settle(true);
  }
}

function eventOf(seq: number, at: string, text: string): DurableEvent {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const event = DurableEvent.safeParse({ ...(value as object | undefined), seq, at });
  if (event.success) return event.data;
  return { seq, at, kind: "gap", fromSeq: seq, toSeq: seq, reason: "the event on the node's disk cannot be read" };
}

function withMessageCut(body: EventBody): EventBody {
  if (!("message" in body) || body.message === undefined || body.message.length <= MAX_MESSAGE) return body;
  return { ...body, message: `${body.message.slice(0, MAX_MESSAGE).toWellFormed()}…` };
}
