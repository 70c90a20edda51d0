/** A pause that somebody else may cut short. A ring while nobody waits is kept for the next wait. */
export class Bell {
  #rung = false;
  #wake: (() => void) | undefined;

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  /** Forgets a ring nobody waited for. */
  hush(): void {
    this.#rung = false;
  }

  /** Resolves with the ring, after `ms` (never by itself where absent), or with the signal; no timer is left. */
  wait(signal: AbortSignal, ms?: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        this.#wake = undefined;
        this.#rung = false;
        resolve();
      };
      const timer = ms === undefined ? undefined : setTimeout(done, ms);
      this.#wake = done;
      signal.addEventListener("abort", done, { once: true });
      if (this.#rung || signal.aborted) done();
    });
  }
}
