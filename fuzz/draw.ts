/**
 * Where every generator gets its choices from. A choice is a whole number below a bound, and all that were made are kept: replaying a
 * shorter or smaller list of them gives a simpler input of the same generator, so that nothing needs a shrinker of its own. Generators
 * therefore put what is simplest first: 0 is the plainest choice.
 */
export class Draw {
  readonly made: number[] = [];
  readonly #next: () => number;

  private constructor(next: () => number) {
    this.#next = next;
  }

  /** Choices that follow from the numbers given, and from nothing else. */
  static seeded(...numbers: readonly number[]): Draw {
    return new Draw(randomOf(numbers));
  }

  /** The choices of `made` again; 0 for each beyond them. */
  static replaying(made: readonly number[]): Draw {
    let at = 0;
    return new Draw(() => made[at++] ?? 0);
  }

  /** A whole number from 0 to `bound` - 1. */
  below(bound: number): number {
    // Asked for also where there is no choice: a replay has one for each.
    const choice = this.#next() % Math.max(1, bound);
    this.made.push(choice);
    return choice;
  }

  /** True once in `times`. */
  once(times: number): boolean {
    return this.below(times) === times - 1;
  }

  of<T>(choices: readonly T[]): T {
    if (choices.length === 0) throw new RangeError("there is nothing to choose from");
    return choices[this.below(choices.length)] as T;
  }

  /** One of several ways to make something. */
  any<T>(...ways: readonly (() => T)[]): T {
    return this.of(ways)();
  }

  list<T>(most: number, make: (position: number) => T): T[] {
    return Array.from({ length: this.below(most + 1) }, (_, position) => make(position));
  }

  bytes(most: number): Buffer {
    return Buffer.from(this.list(most, () => this.below(256)));
  }
}

/** sfc32 over whole numbers (Chris Doty-Humphrey, PractRand), seeded by a hash of the numbers given. */
function randomOf(numbers: readonly number[]): () => number {
  let hash = 0x811c9dc5;
  for (const number of numbers) {
    for (let shift = 0; shift < 32; shift += 8) hash = Math.imul(hash ^ ((number >>> shift) & 0xff), 0x01000193);
  }
  let [a, b, c, counter] = [hash, hash ^ 0x9e3779b9, Math.imul(hash, 0x85ebca6b), 1];
  const next = () => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let round = 0; round < 12; round += 1) next();
  return next;
}
