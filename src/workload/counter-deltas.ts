/** What an engine counts of a container, from the container's start on. */
export interface Counters {
  cpuSeconds: number;
  networkRxBytes: number;
  networkTxBytes: number;
}

const KEYS = ["cpuSeconds", "networkRxBytes", "networkTxBytes"] as const;

/** What a container's counters have grown by since the last usage record. */
export class CounterDeltas {
  /** undefined where it is not known what has been told already: the first reading is then where counting begins. */
  #before: Counters | undefined;
  #grown: Counters | undefined;

  /**
   * `told`: what earlier records told in all; undefined where there are none. A container that was restarted counts from zero, so what it
   * had counted before that cannot be told from `told` alone.
   */
  constructor(told: Counters | undefined, { mayHaveRestarted }: { mayHaveRestarted: boolean }) {
    if (told === undefined) this.#before = { cpuSeconds: 0, networkRxBytes: 0, networkTxBytes: 0 };
    else this.#before = mayHaveRestarted ? undefined : told;
  }

  /** A new reading. One that is below the last is of a container that was started again. */
  read(now: Counters): void {
    const before = this.#before ?? now;
    const grown = this.#grown ?? { cpuSeconds: 0, networkRxBytes: 0, networkTxBytes: 0 };
    for (const key of KEYS) grown[key] += now[key] >= before[key] ? now[key] - before[key] : now[key];
    this.#grown = grown;
    this.#before = {
      cpuSeconds: now.cpuSeconds,
      networkRxBytes: now.networkRxBytes,
      networkTxBytes: now.networkTxBytes,
    };
  }

  /** Absent where nothing was read. */
  figures(): Partial<Counters> {
    if (this.#grown === undefined) return {};
    const { cpuSeconds, networkRxBytes, networkTxBytes } = this.#grown;
    return {
      cpuSeconds: Math.round(cpuSeconds * 1000) / 1000,
      networkRxBytes: Math.round(networkRxBytes),
      networkTxBytes: Math.round(networkTxBytes),
    };
  }

  clear(): void {
    this.#grown = undefined;
  }
}
