/** `a`, `a and b`, `a, b and c`. */
export function list(words: readonly string[]): string {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** `GPU 0`, `GPU 0 and 2`. */
export function gpusNamed(gpus: readonly { index: number }[]): string {
  return `GPU ${list(gpus.map(({ index }) => String(index)))}`;
}

/** `900 MiB`, `1.5 GiB`. */
export function size(mebibytes: number): string {
  if (mebibytes < 1024) return `${Math.round(mebibytes)} MiB`;
  const gibibytes = mebibytes / 1024;
  return `${gibibytes < 10 ? gibibytes.toFixed(1) : Math.round(gibibytes)} GiB`;
}
