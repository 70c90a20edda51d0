/** Two scrapes no farther apart than this are a scraper's: it comes again. */
const APART_MOST_MS = 30_000;
/** Samples are taken so long after the last two such scrapes: two scrapers that take turns leave no hole in it. */
const GOES_ON_MS = 90_000;
/** For a scraper, samples are taken no more often than this. */
const INTERVAL_LEAST_MS = 2_000;
/** A figure no older than this is one of now: two intervals of the slowest stream there is. */
const FRESH_MS = 10_000;

export interface ScrapeDoors {
  /** The fastest the provider wants samples to be taken; milliseconds. */
  intervalMs: number;
  /** Has samples taken at this interval until it is disposed of. */
  listen(intervalMs: number): Disposable;
  /** Age of the newest sample in milliseconds; undefined where there is none. */
  newestAgeMs(): number | undefined;
  /** Reads the GPUs in full; resolves with its samples, or soon without them. Not called while another is on its way. */
  read(): Promise<void>;
  /** A clock that only passes; milliseconds. */
  now(): number;
}

/**
 * Who scrapes looks, like a person, but comes again by itself. One who comes every 30 s or more often gets a sample stream that stays,
 * so that no nvidia-smi is started for each scrape; it ends 90 s after he stayed away. One who comes less often, and whoever comes for the
 * first time, gets a full read of his own, unless there are samples anyway.
 */
export class Scrapes implements Disposable {
  readonly #doors: ScrapeDoors;
  #lastAt = Number.NEGATIVE_INFINITY;
  #stream: Disposable | undefined;
  #ends: NodeJS.Timeout | undefined;
  #reading: Promise<void> | undefined;

  constructor(doors: ScrapeDoors) {
    this.#doors = doors;
  }

  /** Somebody scrapes. Resolves when the figures are as fresh as they will be. */
  async scraped(): Promise<void> {
    const now = this.#doors.now();
    const isScraper = now - this.#lastAt <= APART_MOST_MS;
    this.#lastAt = now;
    if (isScraper) this.#goOn();
    if ((this.#doors.newestAgeMs() ?? Number.POSITIVE_INFINITY) <= FRESH_MS) return;
    this.#reading ??= this.#doors.read().finally(() => {
      this.#reading = undefined;
    });
    await this.#reading;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#ends);
    this.#stream?.[Symbol.dispose]();
    this.#stream = undefined;
  }

  #goOn(): void {
    this.#stream ??= this.#doors.listen(Math.max(INTERVAL_LEAST_MS, this.#doors.intervalMs));
    clearTimeout(this.#ends);
    this.#ends = setTimeout(() => this[Symbol.dispose](), GOES_ON_MS);
    this.#ends.unref();
  }
}
