import { isIPv6 } from "node:net";

/** Sockets that have not been welcomed yet: of one address, and of all. A fleet that comes back needs a few at a time. */
const MOST_OF_ONE = 256;
const MOST_OF_ALL = 1024;
/** Join tokens that may be wrong: so many at once, then one each so many milliseconds. */
const GUESSES = 20;
const GUESS_EVERY_MS = 6000;
/** Addresses whose guesses are counted; beyond that the longest known is forgotten. */
const MOST_ADDRESSES = 10_000;

/** A socket's place in the doorway. */
export interface Stranger {
  /** Seconds until this address may try a join token again; undefined where it may now. */
  waitSeconds(): number | undefined;
  /** It brought a token that does not admit. */
  guessedWrong(): void;
  /** Welcomed, or gone; more than once is no error. */
  leave(): void;
}

/**
 * Bounds what those may cost who have not proved who they are. A node that is known is never held up by the guesses of others
 * behind the same address: only those who need a token are.
 */
export class Strangers {
  readonly #steady: () => number;
  readonly #inside = new Map<string, number>();
  readonly #guesses = new Map<string, { left: number; atMs: number }>();
  #all = 0;

  constructor(steady: () => number) {
    this.#steady = steady;
  }

  /** Undefined where too many stand there already. */
  enter(remoteAddress: string | undefined): Stranger | undefined {
    const address = networkOf(remoteAddress ?? "");
    const inside = this.#inside.get(address) ?? 0;
    if (inside >= MOST_OF_ONE || this.#all >= MOST_OF_ALL) return undefined;
    this.#inside.set(address, inside + 1);
    this.#all += 1;
    let isInside = true;
    return {
      waitSeconds: () => {
        const left = this.#guessesOf(address).left;
        return left >= 1 ? undefined : Math.ceil(((1 - left) * GUESS_EVERY_MS) / 1000);
      },
      guessedWrong: () => {
        const { left, atMs } = this.#guessesOf(address);
        // The newest last, so that the first is the longest known.
        this.#guesses.delete(address);
        this.#guesses.set(address, { left: left - 1, atMs });
        const [longest] = this.#guesses.keys();
        if (this.#guesses.size > MOST_ADDRESSES && longest !== undefined) this.#guesses.delete(longest);
      },
      leave: () => {
        if (!isInside) return;
        isInside = false;
        this.#all -= 1;
        const others = (this.#inside.get(address) ?? 1) - 1;
        if (others === 0) this.#inside.delete(address);
        else this.#inside.set(address, others);
      },
    };
  }

  #guessesOf(address: string): { left: number; atMs: number } {
    const nowMs = this.#steady();
    const { left, atMs } = this.#guesses.get(address) ?? { left: GUESSES, atMs: nowMs };
    return { left: Math.min(GUESSES, left + (nowMs - atMs) / GUESS_EVERY_MS), atMs: nowMs };
  }
}

/** Who has one IPv6 address has the 2^64 beside it. */
function networkOf(address: string): string {
  const bare = address.replace(/^::ffff:(?=\d+\.)/, "").replace(/%.*$/, "");
  if (!isIPv6(bare)) return bare;
  const [head = "", tail = ""] = bare.split("::");
  const groups = head === "" ? [] : head.split(":");
  const after = bare.includes("::") && tail !== "" ? tail.split(":") : [];
  const zeros = Array<string>(Math.max(0, 8 - groups.length - after.length)).fill("0");
  return [...groups, ...(bare.includes("::") ? zeros : []), ...after].slice(0, 4).join(":");
}
