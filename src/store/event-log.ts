import type { DatabaseSync, StatementSync } from "node:sqlite";
import { DurableEvent, type EventBody } from "../protocol/event.ts";
import { Instant } from "../protocol/scalars.ts";
import {
  bound,
  EVENT_LIMITS,
  type EventLimits,
  type FoldUsage,
  type GapRow,
  gapOf,
  IS_EVENT,
  sizeOf,
} from "./event-bound.ts";
import { jsonWithoutSecrets } from "./no-secrets.ts";
import { transaction } from "./sqlite.ts";

/** A message of an event is cut to this many characters, so that an event always fits into a frame. */
const MAX_MESSAGE = 4096;

export interface EventLogOptions {
  now: () => number;
  /** 100,000 events and 64 MiB where absent. */
  limits?: EventLimits;
  /** Makes one signed usage record of several; without it interim records are dropped as any others. */
  fold?: FoldUsage;
}

/** An event on its way to the disk. */
export interface PreparedEvent {
  body: EventBody;
  /** The body as JSON. */
  text: string;
}

/**
 * The node's durable events: numbered from 1 without a hole, never the same number twice, kept until acked. The rows on
 * disk stand for all from `acked + 1` to `newest`: where there was no room for each, a gap stands for several.
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
  readonly #reaching: StatementSync;
  readonly #move: StatementSync;
  readonly #limits: EventLimits;
  readonly #fold: FoldUsage | undefined;
  /** What the log holds, as far as commits have gone. */
  #size: EventLimits;
  /** Of the last `append`, which counts with its commit. */
  #appendedBytes = 0;
  /** What the coordinator may hold without having said so ends here: behind it records may be folded. */
  #handed: number;
  /** An ack the disk has not taken yet: its rows go with the next write that succeeds. */
  #owesDeletion = false;
  readonly #waiting = new Set<{ seq: number; settle: (told: boolean) => void }>();
  #newest: number;
  #acked: number;
  /** False until a coordinator has said once what it holds of this log. */
  #resumed: boolean;

  constructor(db: DatabaseSync, { now, limits = EVENT_LIMITS, fold }: EventLogOptions) {
    this.#db = db;
    this.#now = now;
    this.#limits = limits;
    this.#fold = fold;
    this.#size = sizeOf(db);
    this.#insert = db.prepare("INSERT INTO events (seq, at, body) VALUES (?, ?, ?)");
    this.#select = db.prepare("SELECT seq, at, body FROM events WHERE seq > ? ORDER BY seq");
    this.#delete = db.prepare(
      `DELETE FROM events WHERE seq <= ? RETURNING length(body) AS bytes, ${IS_EVENT} AS events`,
    );
    this.#reaching = db.prepare("SELECT seq, at, body FROM events WHERE seq <= ? ORDER BY seq DESC LIMIT 1");
    this.#move = db.prepare("UPDATE position SET newest = ?, acked = ?, resumed = ?");
    const position = db.prepare("SELECT newest, acked, resumed FROM position").get();
    this.#newest = Number(position?.newest ?? 0);
    this.#acked = Number(position?.acked ?? 0);
    this.#resumed = position?.resumed === 1;
    this.#handed = this.#newest;
  }

  /** `seq` of the last event; 0 where there never was one. */
  get newest(): number {
    return this.#newest;
  }

  /** `seq` of the first event still held: `newest + 1` where all have been acked, 0 where there never was one. */
  get oldest(): number {
    return this.#newest === 0 ? 0 : this.#acked + 1;
  }

  /** The events as they will be written. Throws TypeError where one carries secrets. */
  prepare(bodies: readonly EventBody[]): PreparedEvent[] {
    return bodies.map(withMessageCut).map((body) => ({ body, text: jsonWithoutSecrets(body) }));
  }

  /** Within a transaction: writes events behind the newest. */
  append(prepared: readonly PreparedEvent[]): DurableEvent[] {
    if (prepared.length === 0) return [];
    if (this.#owesDeletion) this.#letGo(this.#acked);
    if (this.#size.events >= this.#limits.events || this.#size.bytes >= this.#limits.bytes) {
      bound(this.#db, this.#limits, { foldAfter: this.#handed, fold: this.#fold });
    }
    const at = new Date(this.#now()).toISOString();
    this.#appendedBytes = 0;
    const events = prepared.map(({ body, text }, index) => {
      const seq = this.#newest + index + 1;
      this.#insert.run(seq, at, text);
      this.#appendedBytes += text.length;
      return { seq, at, ...body };
    });
    this.#move.run(this.#newest + prepared.length, this.#acked, Number(this.#resumed));
    return events;
  }

  /** The transaction of an `append` has been committed. */
  settle(events: readonly DurableEvent[]): void {
    if (events.length === 0) return;
    this.#newest = events.at(-1)?.seq ?? this.#newest;
    this.#owesDeletion = false;
    const isFull = this.#size.events >= this.#limits.events || this.#size.bytes >= this.#limits.bytes;
    if (isFull) this.#size = sizeOf(this.#db);
    else {
      this.#size.events += events.length;
      this.#size.bytes += this.#appendedBytes;
    }
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
    const last = events.at(-1);
    this.#handed = Math.max(this.#handed, last?.kind === "gap" ? last.toSeq : (last?.seq ?? 0));
    return events;
  }

  /** The coordinator holds all up to and with `seq`: they are let go. Throws RangeError beyond `newest`. */
  acked(seq: number): void {
    if (seq > this.#newest) throw new RangeError(`event ${seq} has not been written; the newest is ${this.#newest}`);
    if (seq <= this.#acked) return;
    try {
      const gone = transaction(this.#db, () => {
        this.#move.run(this.#newest, seq, Number(this.#resumed));
        return this.#letGo(seq);
      });
      this.#size.events -= gone.events;
      this.#size.bytes -= gone.bytes;
    } catch {
      // A full disk takes not even a deletion. The rows go with the next write; until then a restart tells them again.
      this.#owesDeletion = true;
    }
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
      // What it holds is known for certain now.
      this.#handed = acked;
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
    this.#handed = acked;
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

  /** Within a transaction: deletes what ends at or before `seq`, and tells how much that was. What a gap stands for behind it stays. */
  #letGo(seq: number): EventLimits {
    const last = this.#reaching.get(seq);
    const gone = { events: 0, bytes: 0 };
    for (const { events, bytes } of this.#delete.all(seq)) {
      gone.events += Number(events);
      gone.bytes += Number(bytes);
    }
    const event = last === undefined ? undefined : eventOf(Number(last.seq), String(last.at), String(last.body));
    if (event?.kind !== "gap" || event.toSeq <= seq) return gone;
    const rest: GapRow = { kind: "gap", span: event.toSeq - seq, reason: event.reason };
    const body = JSON.stringify(rest);
    this.#insert.run(seq + 1, event.at, body);
    return { ...gone, bytes: gone.bytes - body.length };
  }

  #tell(): void {
    for (const { seq, settle } of [...this.#waiting]) if (seq <= this.#acked) settle(true);
  }
}

function eventOf(seq: number, written: string, text: string): DurableEvent {
  const at = Instant.safeParse(written).data ?? new Date(0).toISOString();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const row = value as Partial<GapRow> | null | undefined;
  if (row?.kind === "gap") {
    const { span, reason } = gapOf(seq, row);
    return { seq, at, kind: "gap", fromSeq: seq, toSeq: seq + span - 1, reason };
  }
  // A text would be spread letter by letter.
  const event = DurableEvent.safeParse({ ...(typeof value === "object" && value), seq, at });
  if (event.success) return event.data;
  return { seq, at, kind: "gap", fromSeq: seq, toSeq: seq, reason: "the event on the node's disk cannot be read" };
}

function withMessageCut(body: EventBody): EventBody {
  if (!("message" in body) || body.message === undefined || body.message.length <= MAX_MESSAGE) return body;
  return { ...body, message: `${body.message.slice(0, MAX_MESSAGE).toWellFormed()}…` };
}
