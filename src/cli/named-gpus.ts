import type { GpuStatus } from "../local/snapshot.ts";

/** The GPUs that are named by index or UUID; undefined where none are named, which means all of the machine. */
export function namedGpus(
  names: readonly string[] | undefined,
  gpus: readonly GpuStatus[],
): readonly GpuStatus[] | undefined {
  if (names === undefined) return undefined;
  const isNamed = ({ index, uuid }: GpuStatus) =>
    names.some((name) => name === String(index) || name.toLowerCase() === uuid.toLowerCase());
  return gpus.filter(isNamed);
}
