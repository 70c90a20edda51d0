import type { DatabaseSync, StatementSync } from "node:sqlite";
import { type EventBody, UsageEvent } from "../protocol/event.ts";

/** Kept so long, and so many at most, whether a coordinator has them or not: the owner's own proof of what was used. */
const KEEP_MS = 400 * 86_400_000;
const KEEP_ROWS = 200_000;
/** Old rows are looked for with every so many new ones. */
const TIDY_EVERY = 500;
const PAGE = 500;

/** What a generation has used in all, as far as the ledger tells. */
export interface UsageSum {
  cpuSeconds: number;
  networkRxBytes: number;
  networkTxBytes: number;
}

/**
 * The usage records this node has signed, each written in the transaction of its event. Unlike events they stay when the
 * coordinator has them.
 */
export class Ledger {
  readonly #now: () => number;
  readonly #insert: StatementSync;
  readonly #last: StatementSync;
  readonly #sum: StatementSync;
  readonly #page: StatementSync;
  readonly #tidy: StatementSync;
  #untilTidy = 1;

  constructor(db: DatabaseSync, now: () => number) {
    this.#now = now;
    this.#insert = db.prepare("INSERT INTO usage (workload, generation, ends, body) VALUES (?, ?, ?, ?)");
    this.#last = db.prepare(
      "SELECT body FROM usage WHERE workload = ? AND generation = ? ORDER BY position DESC LIMIT 1",
    );
    // Not "sum", which gives whole numbers that a double cannot hold, and throws for them.
    this.#sum = db.prepare(
      `SELECT total(body ->> 'cpuSeconds') AS cpu, total(body ->> 'networkRxBytes') AS rx, total(body ->> 'networkTxBytes') AS tx
       FROM usage WHERE workload = ? AND generation = ? AND json_valid(body)`,
    );
    this.#page = db.prepare(
      "SELECT position, body FROM usage WHERE ends > ? AND position > ? ORDER BY position LIMIT ?",
    );
    this.#tidy = db.prepare("DELETE FROM usage WHERE ends < ? OR position <= (SELECT max(position) FROM usage) - ?");
  }

  /** Within a transaction: keeps the usage records among the events. */
  keep(bodies: readonly EventBody[]): void {
    for (const body of bodies) {
      if (body.kind !== "usage") continue;
      this.#insert.run(body.workload, body.generation, Date.parse(body.to), JSON.stringify(body));
      this.#untilTidy -= 1;
    }
    if (this.#untilTidy > 0) return;
    this.#untilTidy = TIDY_EVERY;
    this.#tidy.run(this.#now() - KEEP_MS, KEEP_ROWS);
  }

  /** The newest record of a generation; undefined where there is none. */
  last(workload: string, generation: number): UsageEvent | undefined {
    return recordOf(this.#last.get(workload, generation)?.body);
  }

  sum(workload: string, generation: number): UsageSum {
    const row = this.#sum.get(workload, generation);
    return {
      cpuSeconds: Number(row?.cpu ?? 0),
      networkRxBytes: Number(row?.rx ?? 0),
      networkTxBytes: Number(row?.tx ?? 0),
    };
  }

  /** Records that end after `sinceMs` (milliseconds since the epoch), in the order they were written. Read as they are asked for. */
  *since(sinceMs: number): Generator<unknown> {
    for (const { record } of this.rows(sinceMs, 0)) yield record;
  }

  /** The same with their positions, from behind one on. */
  *rows(sinceMs: number, after: number): Generator<{ position: number; record: unknown }> {
    let position = after;
    while (true) {
      const rows = this.#page.all(sinceMs, position, PAGE);
      for (const row of rows) {
        position = Number(row.position);
        yield { position, record: jsonOf(row.body) };
      }
      if (rows.length < PAGE) return;
    }
  }
}

function recordOf(body: unknown): UsageEvent | undefined {
  const record = UsageEvent.safeParse(jsonOf(body));
  return record.success ? record.data : undefined;
}

function jsonOf(body: unknown): unknown {
  try {
    return JSON.parse(String(body));
  } catch {
    return undefined;
  }
}
