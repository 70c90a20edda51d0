/** So many sets are looked at one by one (8 of 16 are 12,870); beyond that, who asks makes do with a good one. */
export const SETS_MAX = 20_000;

/** Every set of `count` of the numbers below `size`, each in ascending order. The array yielded is the same one each time. */
export function* combinations(size: number, count: number): Generator<number[]> {
  const set = Array.from({ length: count }, (_, position) => position);
  while (true) {
    yield set;
    let place = count - 1;
    while (place >= 0 && set[place] === size - count + place) place -= 1;
    if (place < 0) return;
    const from = (set[place] ?? 0) + 1;
    for (let i = place; i < count; i++) set[i] = from + i - place;
  }
}

/** How many such sets there are; more than `SETS_MAX` is only told as that. */
export function binomial(size: number, count: number): number {
  let result = 1;
  for (let i = 1; i <= Math.min(count, size - count) && result <= SETS_MAX; i++) result = (result * (size - i + 1)) / i;
  return result;
}
