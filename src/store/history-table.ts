import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { HistoryChange, HistoryMemory, Span } from "../telemetry/history.ts";

export const HISTORY_SCHEMA = `
  CREATE TABLE history (
    step INTEGER NOT NULL, start INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (step, start)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE history_spans (
    workload TEXT NOT NULL, generation INTEGER NOT NULL, starts INTEGER NOT NULL, ends INTEGER NOT NULL, gpus TEXT NOT NULL,
    PRIMARY KEY (workload, generation)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE history_marks (position INTEGER PRIMARY KEY, at INTEGER NOT NULL, body TEXT NOT NULL) STRICT;`;

/** The newest are kept; a node on which more happens has other worries. */
const MOST_SPANS = 1000;
const MOST_MARKS = 500;

/** What the node did over the last day. Unlike all else here it may be lost, so it waits for no disk. */
export class HistoryTable implements HistoryMemory {
  readonly #transaction: (work: () => void) => void;
  readonly #bucket: StatementSync;
  readonly #buckets: StatementSync;
  readonly #spans: StatementSync;
  readonly #marks: StatementSync;
  readonly #putBucket: StatementSync;
  readonly #putSpan: StatementSync;
  readonly #putMark: StatementSync;
  readonly #forgetBuckets: StatementSync;
  readonly #forgetSpans: StatementSync;
  readonly #forgetMarks: StatementSync;

  /** `transaction` does all of `work` or, where the disk refuses, throws. */
  constructor(db: DatabaseSync, transaction: (work: () => void) => void) {
    this.#transaction = transaction;
    this.#bucket = db.prepare("SELECT body FROM history WHERE step = ? AND start = ?");
    this.#buckets = db.prepare("SELECT start, body FROM history WHERE step = ? AND start >= ? ORDER BY start");
    this.#spans = db.prepare("SELECT * FROM history_spans WHERE ends > ? ORDER BY starts, workload, generation");
    this.#marks = db.prepare("SELECT body FROM history_marks WHERE at >= ? ORDER BY at, position");
    this.#putBucket = db.prepare(
      "INSERT INTO history (step, start, body) VALUES (?, ?, ?) ON CONFLICT (step, start) DO UPDATE SET body = excluded.body",
    );
    this.#putSpan = db.prepare(
      `INSERT INTO history_spans (workload, generation, starts, ends, gpus) VALUES (?, ?, ?, ?, ?) ON CONFLICT (workload, generation)
       DO UPDATE SET starts = min(starts, excluded.starts), ends = excluded.ends, gpus = excluded.gpus`,
    );
    this.#putMark = db.prepare("INSERT INTO history_marks (at, body) VALUES (?, ?)");
    this.#forgetBuckets = db.prepare("DELETE FROM history WHERE step = ? AND (start < ? OR start > ?)");
    this.#forgetSpans = db.prepare(
      `DELETE FROM history_spans WHERE ends < ? OR starts > ?
       OR ends < (SELECT ends FROM history_spans ORDER BY ends DESC LIMIT 1 OFFSET ${MOST_SPANS - 1})`,
    );
    this.#forgetMarks = db.prepare(
      `DELETE FROM history_marks WHERE at < ? OR at > ? OR position <= (SELECT max(position) FROM history_marks) - ${MOST_MARKS}`,
    );
  }

  bucket(stepMs: number, startMs: number): string | undefined {
    const row = this.#bucket.get(stepMs, startMs);
    return row === undefined ? undefined : String(row.body);
  }

  buckets(stepMs: number, sinceMs: number): { startMs: number; body: string }[] {
    return this.#buckets.all(stepMs, sinceMs).map((row) => ({ startMs: Number(row.start), body: String(row.body) }));
  }

  spans(sinceMs: number): Span[] {
    return this.#spans.all(sinceMs).map((row) => ({
      workload: String(row.workload),
      generation: Number(row.generation),
      gpus: String(row.gpus).split(" "),
      fromMs: Number(row.starts),
      toMs: Number(row.ends),
    }));
  }

  marks(sinceMs: number): unknown[] {
    return this.#marks.all(sinceMs).map((row) => jsonOf(String(row.body)));
  }

  save({ buckets, spans, marks, forget: { levels, nowMs, keepMs } }: HistoryChange): void {
    this.#transaction(() => {
      for (const { stepMs, startMs, body } of buckets) this.#putBucket.run(stepMs, startMs, body);
      for (const { workload, generation, fromMs, toMs, gpus } of spans)
        this.#putSpan.run(workload, generation, fromMs, toMs, gpus.join(" "));
      for (const mark of marks) this.#putMark.run(mark.atMs, JSON.stringify(mark));
      for (const level of levels) this.#forgetBuckets.run(level.stepMs, nowMs - level.keepMs - level.stepMs, nowMs);
      this.#forgetSpans.run(nowMs - keepMs, nowMs);
      this.#forgetMarks.run(nowMs - keepMs, nowMs);
    });
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
