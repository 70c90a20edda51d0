/** So many unusable frames may come at once … */
const BURST = 100;
/** … and so many more each second, for as long as the session lasts. */
const PER_SECOND = 1;

/** Tells a peer that makes a mistake from one that floods. */
export class BadFrameBudget {
  readonly #now: () => number;
  #left = BURST;
  #at: number;

  /** `now` in milliseconds, monotonic. */
  constructor(now: () => number) {
    this.#now = now;
    this.#at = now();
  }

  /** Counts one; false where it was one too many. */
  spend(): boolean {
    const now = this.#now();
    this.#left = Math.min(BURST, this.#left + ((now - this.#at) / 1000) * PER_SECOND);
    this.#at = now;
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }
}
