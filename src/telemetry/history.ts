import type { DurableEvent } from "../protocol/event.ts";
import {
  type Bucket,
  coarsen,
  LEVELS,
  type Level,
  levelFor,
  merge,
  mergeBuckets,
  readBucket,
  spread,
  startOf,
  type Tally,
  written,
} from "./buckets.ts";
import type { Sample } from "./collector.ts";
import { Mark, markOf } from "./marks.ts";

/** What is kept of a GPU and of the host, in the order of their tallies. */
export const FIGURES = {
  gpu: ["utilizationPercent", "vramUsedMiB", "powerWatts", "temperatureCelsius"],
  host: ["cpuPercent", "memoryUsedMiB", "networkRxBytesPerSecond", "networkTxBytesPerSecond"],
} as const;
/** The host's place among the subjects of a bucket; the others are GPUs, by UUID. */
const HOST = "host";

/** How long a workload held its GPUs or MIG instances. Times are milliseconds since the epoch. */
export interface Span {
  workload: string;
  generation: number;
  gpus: readonly string[];
  fromMs: number;
  toMs: number;
}

/** What is put away in one go. */
export interface HistoryChange {
  /** In place of what is there of the same step and start. */
  buckets: { stepMs: number; startMs: number; body: string }[];
  /** In place of what is there of the same workload and generation; the earlier start stays. */
  spans: Span[];
  marks: Mark[];
  /** What is older goes, and what lies in the future (the clock was set back). */
  forget: { levels: readonly Level[]; nowMs: number; keepMs: number };
}

/** Where the history lies. All of it may be lost without harm. */
export interface HistoryMemory {
  bucket(stepMs: number, startMs: number): string | undefined;
  buckets(stepMs: number, sinceMs: number): { startMs: number; body: string }[];
  /** Those that end after `sinceMs`, oldest first. */
  spans(sinceMs: number): Span[];
  /** Oldest first; anything may have become of them on the disk. */
  marks(sinceMs: number): unknown[];
  /** Throws where the disk refuses; nothing was put away then. */
  save(change: HistoryChange): void;
}

/** A workload, as far as its place in the history goes. Times are milliseconds since the epoch. */
export interface HistoricWorkload {
  id: string;
  generation: number;
  gpus: readonly string[];
  startedAt?: number;
  finishedAt?: number;
}

/** The past at one resolution. */
export interface Past {
  sinceMs: number;
  nowMs: number;
  stepMs: number;
  figures: typeof FIGURES;
  /** By start; one that is missing is a gap. */
  buckets: ReadonlyMap<number, Bucket>;
  /** `toMs` is `nowMs` where the workload is still there. */
  spans: readonly (Span & { isOpen: boolean })[];
  marks: readonly Mark[];
}

const KEEP_MS = LEVELS[2].keepMs;
const SAVE_EVERY_MS = 60_000;
/** Samples further apart are no line, but a gap. While nobody listens there is one a minute. */
const LONGEST_LINE_MS = 90_000;
/** A disk that refuses longer than the finest level reaches back costs the rest. */
const MOST_PENDING = LEVELS[0].keepMs / LEVELS[0].stepMs;
const MOST_MARKS = 500;

interface Seen {
  atMs: number;
  figures: readonly (number | undefined)[];
}

/**
 * What the GPUs and the host did over the last day, who held which GPU, and what happened. Takes what is sampled anyway and puts it away
 * once a minute; asks for no sample of its own.
 */
export class History implements Disposable {
  readonly #memory: HistoryMemory;
  readonly #now: () => number;
  readonly #log: { debug(fields: object, message: string): void };
  readonly #saving: NodeJS.Timeout;
  /** Buckets of the finest level that are not put away yet, or not whole. */
  #pending = new Map<number, Map<string, (Tally | null)[]>>();
  readonly #seen = new Map<string, Seen>();
  #networkBytes: { rx: number | undefined; tx: number | undefined } | undefined;
  /** By workload and generation: those there now, and those that have ended and are not put away yet. */
  readonly #spans = new Map<string, Span & { isOpen: boolean }>();
  #marks: Mark[] = [];

  constructor(options: {
    memory: HistoryMemory;
    now(): number;
    log: { debug(fields: object, message: string): void };
  }) {
    this.#memory = options.memory;
    this.#now = options.now;
    this.#log = options.log;
    this.#saving = setInterval(() => this.save(), SAVE_EVERY_MS);
    this.#saving.unref();
  }

  /** A frame, whoever asked for it. */
  sampled({ at, gpus, host }: Pick<Sample, "at" | "gpus" | "host">): void {
    const atMs = Date.parse(at);
    for (const gpu of gpus) {
      this.#draw(
        gpu.uuid,
        atMs,
        FIGURES.gpu.map((figure) => gpu[figure]),
      );
    }
    const { cpuPercent, memoryUsedMiB, networkRxBytes: rx, networkTxBytes: tx } = host;
    const seconds = (atMs - (this.#seen.get(HOST)?.atMs ?? Number.NaN)) / 1000;
    const rates = [rateOf(this.#networkBytes?.rx, rx, seconds), rateOf(this.#networkBytes?.tx, tx, seconds)];
    this.#networkBytes = { rx, tx };
    // These tell of the time since the sample before: no line leads to them.
    this.#draw(HOST, atMs, [cpuPercent, memoryUsedMiB, ...rates], [0, 2, 3]);
  }

  /** A workload began, ended, or is known from before. */
  workload({ id, generation, gpus, startedAt, finishedAt }: HistoricWorkload): void {
    if (startedAt === undefined || gpus.length === 0) return;
    const key = `${id}#${generation}`;
    // A workload that is started again holds its GPUs meanwhile.
    const fromMs = Math.min(Math.round(startedAt), this.#spans.get(key)?.fromMs ?? startedAt);
    const toMs = Math.round(finishedAt ?? this.#now());
    this.#spans.set(key, { workload: id, generation, gpus, fromMs, toMs, isOpen: finishedAt === undefined });
  }

  /** What came into the event log. */
  happened(events: readonly DurableEvent[]): void {
    this.#marks.push(...events.flatMap((event) => markOf(event) ?? []));
    if (this.#marks.length > MOST_MARKS) this.#marks = this.#marks.slice(-MOST_MARKS);
  }

  /** The last `hours`, at the finest resolution that reaches so far back. */
  past(hours: number): Past {
    const nowMs = this.#now();
    const { stepMs } = levelFor(hours * 3_600_000);
    const sinceMs = startOf(nowMs - hours * 3_600_000, stepMs);
    const buckets = new Map<number, Bucket>();
    for (const { startMs, body } of this.#memory.buckets(stepMs, sinceMs)) buckets.set(startMs, readBucket(body));
    for (const [startMs, bucket] of coarsen(this.#pending, stepMs)) {
      if (startMs >= sinceMs) buckets.set(startMs, mergeBuckets(buckets.get(startMs) ?? new Map(), bucket));
    }
    const spans = new Map(this.#memory.spans(sinceMs).map((span) => [keyOf(span), { ...span, isOpen: false }]));
    for (const span of this.#spansNow()) {
      const fromMs = Math.min(span.fromMs, spans.get(keyOf(span))?.fromMs ?? span.fromMs);
      if (span.toMs > sinceMs) spans.set(keyOf(span), { ...span, fromMs });
    }
    const kept = this.#memory.marks(sinceMs).flatMap((raw) => Mark.safeParse(raw).data ?? []);
    const marks = [...kept, ...this.#marks.filter(({ atMs }) => atMs >= sinceMs)];
    return { sinceMs, nowMs, stepMs, figures: FIGURES, buckets, spans: [...spans.values()], marks };
  }

  /** Puts away what is new. A disk that refuses is asked again a minute later. */
  save(): void {
    const nowMs = this.#now();
    try {
      const forget = { levels: LEVELS, nowMs, keepMs: KEEP_MS };
      this.#memory.save({ buckets: this.#whole(), spans: this.#spansNow(), marks: this.#marks, forget });
    } catch (error) {
      this.#log.debug({ err: error }, "the history could not be put away");
      for (const startMs of [...this.#pending.keys()].slice(0, -MOST_PENDING)) this.#pending.delete(startMs);
      return;
    }
    this.#pending = new Map();
    this.#marks = [];
    for (const [key, { isOpen }] of this.#spans) if (!isOpen) this.#spans.delete(key);
    for (const [subject, { atMs }] of this.#seen) if (nowMs - atMs > KEEP_MS) this.#seen.delete(subject);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#saving);
    this.save();
  }

  /** What is pending at every level, with what is put away of the same buckets. */
  #whole(): HistoryChange["buckets"] {
    return LEVELS.flatMap(({ stepMs }) =>
      [...coarsen(this.#pending, stepMs)].map(([startMs, bucket]) => {
        const known = this.#memory.bucket(stepMs, startMs);
        const whole = known === undefined ? bucket : mergeBuckets(readBucket(known), bucket);
        return { stepMs, startMs, body: written(whole) };
      }),
    );
  }

  #spansNow(): (Span & { isOpen: boolean })[] {
    const nowMs = this.#now();
    return [...this.#spans.values()].map((span) => (span.isOpen ? { ...span, toMs: nowMs } : span));
  }

  /** Lines from what was seen before of a subject to what is seen now; `level` are the figures that hold for all of that time. */
  #draw(subject: string, atMs: number, figures: readonly (number | undefined)[], level: readonly number[] = []): void {
    const before = this.#seen.get(subject);
    this.#seen.set(subject, { atMs, figures });
    if (before === undefined || atMs <= before.atMs || atMs - before.atMs > LONGEST_LINE_MS) return;
    figures.forEach((to, figure) => {
      const from = level.includes(figure) ? to : before.figures[figure];
      if (from === undefined || to === undefined) return;
      for (const [startMs, tally] of spread({ fromMs: before.atMs, toMs: atMs, from, to }, LEVELS[0].stepMs)) {
        this.#add(startMs, subject, figure, tally);
      }
    });
  }

  #add(startMs: number, subject: string, figure: number, tally: Tally): void {
    const bucket = this.#pending.get(startMs) ?? new Map<string, (Tally | null)[]>();
    this.#pending.set(startMs, bucket);
    const tallies = bucket.get(subject) ?? [];
    bucket.set(subject, tallies);
    while (tallies.length < figure) tallies.push(null);
    tallies[figure] = merge(tallies[figure], tally);
  }
}

function keyOf({ workload, generation }: Span): string {
  return `${workload}#${generation}`;
}

/** Bytes a second; undefined where the counters were set back, or nothing was known before. */
function rateOf(before: number | undefined, now: number | undefined, seconds: number): number | undefined {
  if (before === undefined || now === undefined || !(seconds > 0) || now < before) return undefined;
  return (now - before) / seconds;
}
