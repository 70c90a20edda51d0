import type { DurableEvent } from "../protocol/event.ts";
import type { EventLog } from "./needs.ts";
import type { Outbox } from "./outbox.ts";

/** The contract keeps `events` frames below 256 KiB; this leaves room for what is around the events. */
const BATCH_BYTES = 240 * 1024;
const BATCH_EVENTS = 1000;

/** So much may be on its way without an ack (a coordinator may well ack now and then only); one frame more and the rest waits on the disk. */
const MAX_IN_FLIGHT_BYTES = 3 * BATCH_BYTES;

/** Nothing acked for so long: what was sent is sent again, from the last ack. Repeats are dropped by the contract. */
const ACK_TIMEOUT_MS = 30_000;

export interface EventFlowOptions {
  /** What the coordinator holds. */
  acked: number;
  ackTimeoutMs?: number;
  now: () => number;
  /** The log could not be read: the session cannot go on. */
  onFailure: (error: unknown) => void;
}

/**
 * Brings the durable events to the coordinator, in order, for one session.
 *
 *     log on disk ── sent (≤ 960 KiB) ──▶ in flight ── ack ──▶ let go
 *                 ◀──── nothing acked for 30 s ────┘
 *
 * Nothing is kept in memory but positions: whatever is not acked is read from the log again.
 */
export class EventFlow implements Disposable {
  readonly #log: EventLog;
  readonly #outbox: Outbox;
  readonly #options: EventFlowOptions;
  readonly #unsubscribe: () => void;
  /** Last event handed to the socket. */
  #sent: number;
  #acked: number;
  /** Frames without an ack: the last event of each, and its size. */
  #inFlight: { last: number; bytes: number }[] = [];
  #bytesInFlight = 0;
  #isScheduled = false;
  #isClosed = false;
  #stall: NodeJS.Timeout | undefined;

  constructor(log: EventLog, outbox: Outbox, options: EventFlowOptions) {
    this.#log = log;
    this.#outbox = outbox;
    this.#options = options;
    this.#sent = options.acked;
    this.#acked = options.acked;
    this.#unsubscribe = log.onAppend(() => this.#schedule());
    this.#schedule();
  }

  /** The coordinator holds all up to and with `seq`, which is at most `log.newest`. */
  acked(seq: number): void {
    if (seq <= this.#acked) return;
    this.#log.acked(seq);
    this.#acked = seq;
    this.#sent = Math.max(this.#sent, seq);
    this.#keepInFlight(this.#inFlight.filter(({ last }) => last > seq));
    this.#watch();
    this.#schedule();
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    clearTimeout(this.#stall);
    this.#unsubscribe();
  }

  /** Events of one turn of the loop leave together. */
  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      if (this.#isClosed) return;
      try {
        this.#flush();
      } catch (error) {
        this.#options.onFailure(error);
      }
    });
  }

  #flush(): void {
    while (this.#sent < this.#log.newest && this.#bytesInFlight < MAX_IN_FLIGHT_BYTES && !this.#outbox.isFull) {
      const events = this.#next();
      const last = events.at(-1);
      if (last === undefined || !this.#outbox.send({ type: "events", events }, () => this.#schedule())) return;
      this.#sent = reachOf(last);
      const bytes = Buffer.byteLength(JSON.stringify(events));
      this.#inFlight.push({ last: this.#sent, bytes });
      this.#bytesInFlight += bytes;
      if (this.#stall === undefined) this.#watch();
    }
  }

  /** What comes behind the last event sent; where the log no longer has it, a `gap` says so. */
  #next(): DurableEvent[] {
    const events = this.#log.after(this.#sent, BATCH_EVENTS, BATCH_BYTES);
    const fromSeq = this.#sent + 1;
    const toSeq = (events[0]?.seq ?? this.#log.newest + 1) - 1;
    if (toSeq < fromSeq) return events;
    const at = events[0]?.at ?? new Date(this.#options.now()).toISOString();
    const reason = "the node was told that a coordinator holds these events and no longer has them";
    return [{ seq: fromSeq, at, kind: "gap", fromSeq, toSeq, reason }, ...events];
  }

  #keepInFlight(frames: { last: number; bytes: number }[]): void {
    this.#inFlight = frames;
    this.#bytesInFlight = frames.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  #watch(): void {
    clearTimeout(this.#stall);
    this.#stall = undefined;
    if (this.#inFlight.length === 0) return;
    this.#stall = setTimeout(() => {
      this.#stall = undefined;
      this.#sent = this.#acked;
      this.#keepInFlight([]);
      this.#schedule();
    }, this.#options.ackTimeoutMs ?? ACK_TIMEOUT_MS);
  }
}

/** Last event that `event` stands for. */
function reachOf(event: DurableEvent): number {
  return event.kind === "gap" ? Math.max(event.seq, event.toSeq) : event.seq;
}
