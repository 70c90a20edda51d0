import { Draw } from "./draw.ts";

/**
 * The shortest and smallest list of choices found within `tries` that still fails: blocks are left out, from half of the list down to
 * single choices, and what stays is made smaller. Greedy, so it ends in a local minimum; that is small enough to be read.
 */
export async function shrunk(
  made: readonly number[],
  fails: (made: readonly number[]) => Promise<boolean>,
  tries: number,
): Promise<number[]> {
  let best = [...made];
  let left = tries;
  const isBetter = async (candidate: number[]): Promise<boolean> => {
    if (left <= 0) return false;
    left -= 1;
    if (!(await fails(candidate))) return false;
    best = candidate;
    return true;
  };
  for (let before = -1; before !== left && left > 0; ) {
    before = left;
    let hasImproved = false;
    for (let size = Math.ceil(best.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
      for (let from = best.length - size; from >= 0; from -= size) {
        if (await isBetter([...best.slice(0, from), ...best.slice(from + size)])) hasImproved = true;
      }
    }
    for (let position = 0; position < best.length; position += 1) {
      for (const smaller of smallerThan(best[position] ?? 0)) {
        if (await isBetter(best.with(position, smaller))) {
          hasImproved = true;
          break;
        }
      }
    }
    if (!hasImproved) break;
  }
  return best;
}

function smallerThan(value: number): number[] {
  return [...new Set([0, Math.floor(value / 2), value - 1])].filter((other) => other >= 0 && other < value);
}

/** A text as short as it can be made, by leaving out parts of it. */
export async function shrunkText(
  text: string,
  fails: (text: string) => Promise<boolean>,
  tries: number,
): Promise<string> {
  let best = text;
  let left = tries;
  for (let size = Math.ceil(best.length / 2); size >= 1 && left > 0; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < best.length && left > 0; ) {
      left -= 1;
      const candidate = best.slice(0, from) + best.slice(from + size);
      if (await fails(candidate)) best = candidate;
      else from += size;
    }
  }
  return best;
}

export function replayed<T>(make: (draw: Draw) => T, made: readonly number[]): T {
  return make(Draw.replaying(made));
}
