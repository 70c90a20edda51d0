/** `a`, `a and b`, `a, b and c`. */
export function list(words: readonly string[]): string {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** `GPU 0`, `GPU 0 and 2`. */
export function gpusNamed(gpus: readonly { index: number }[]): string {
  return `GPU ${list(gpus.map(({ index }) => String(index)))}`;
}

/** `0,2`, as nvidia-smi takes them. */
export function indexes(gpus: readonly { index: number }[]): string {
  return gpus.map(({ index }) => index).join(",");
}

/** Why nothing can be said of the GPUs. */
export const NO_GPU = "no GPU answers";

/** `900 MiB`, `1.5 GiB`. */
export function size(mebibytes: number): string {
  if (mebibytes < 1024) return `${Math.round(mebibytes)} MiB`;
  const gibibytes = mebibytes / 1024;
  return `${gibibytes < 10 ? gibibytes.toFixed(1) : Math.round(gibibytes)} GiB`;
}
