import { ScenarioError } from "./errors.ts";
import type { GpuProfile, MigProfile } from "./gpu-profile.ts";
import { uuid } from "./seed.ts";

function mig(
  profileId: number,
  computeSlices: number,
  memorySlices: number,
  [multiprocessors, vramMiB]: readonly [number, number],
  [copyEngines, decoders, jpegs, ofas]: readonly [number, number, number, number],
): MigProfile {
  return { profileId, computeSlices, memorySlices, multiprocessors, vramMiB, copyEngines, decoders, jpegs, ofas };
}

// Source of the MIG tables: NVIDIA MIG User Guide, "Supported MIG Profiles"; engine counts of H100 as its boards report them.
export const MIG_A100_40: Readonly<Record<string, MigProfile>> = {
  "1g.5gb": mig(19, 1, 1, [14, 4864], [1, 0, 0, 0]),
  "2g.10gb": mig(14, 2, 2, [28, 9984], [2, 1, 0, 0]),
  "3g.20gb": mig(9, 3, 4, [42, 20096], [3, 2, 0, 0]),
  "4g.20gb": mig(5, 4, 4, [56, 20096], [4, 2, 0, 0]),
  "7g.40gb": mig(0, 7, 8, [98, 40320], [7, 5, 1, 1]),
};
export const MIG_A100_80: Readonly<Record<string, MigProfile>> = {
  "1g.10gb": mig(19, 1, 1, [14, 9728], [1, 0, 0, 0]),
  "1g.20gb": mig(15, 1, 2, [14, 19968], [1, 1, 0, 0]),
  "2g.20gb": mig(14, 2, 2, [28, 19968], [2, 1, 0, 0]),
  "3g.40gb": mig(9, 3, 4, [42, 40192], [3, 2, 0, 0]),
  "4g.40gb": mig(5, 4, 4, [56, 40192], [4, 2, 0, 0]),
  "7g.80gb": mig(0, 7, 8, [98, 80640], [7, 5, 1, 1]),
};
export const MIG_H100_80: Readonly<Record<string, MigProfile>> = {
  "1g.10gb": mig(19, 1, 1, [16, 9984], [1, 1, 1, 0]),
  "1g.20gb": mig(15, 1, 2, [26, 20096], [1, 1, 1, 0]),
  "2g.20gb": mig(14, 2, 2, [32, 20096], [2, 2, 2, 0]),
  "3g.40gb": mig(9, 3, 4, [60, 40448], [3, 3, 3, 0]),
  "4g.40gb": mig(5, 4, 4, [64, 40448], [4, 4, 4, 0]),
  "7g.80gb": mig(0, 7, 8, [132, 81280], [8, 7, 7, 1]),
};
export const MIG_H200: Readonly<Record<string, MigProfile>> = {
  "1g.18gb": mig(19, 1, 1, [16, 16384], [1, 1, 1, 0]),
  "1g.35gb": mig(15, 1, 2, [26, 33280], [1, 1, 1, 0]),
  "2g.35gb": mig(14, 2, 2, [32, 33280], [2, 2, 2, 0]),
  "3g.71gb": mig(9, 3, 4, [60, 71424], [3, 3, 3, 0]),
  "4g.71gb": mig(5, 4, 4, [64, 71424], [4, 4, 4, 0]),
  "7g.141gb": mig(0, 7, 8, [132, 143360], [8, 7, 7, 1]),
};

/** One MIG device: a GPU instance with one compute instance over all of it. */
export interface MigDevice {
  readonly index: number;
  /** `MIG-…`. */
  readonly uuid: string;
  readonly profileName: string;
  readonly profile: MigProfile;
  readonly gpuInstanceId: number;
  /** First memory slice and number of them. */
  readonly placement: readonly [start: number, size: number];
}

// Instance ids the driver gives out, by memory slices taken: ids follow the place in a binary tree of slices.
const instanceIds: Readonly<Record<number, readonly number[]>> = {
  8: [0],
  4: [2, 1],
  2: [3, 4, 5, 6],
  1: [9, 10, 11, 12, 13, 14, 7, 8],
};

/**
 * The devices a list of profiles makes on one GPU, in that order.
 * @throws ScenarioError where the model has no MIG, does not know a profile or has not enough slices.
 */
export function layOutMig(
  gpu: GpuProfile,
  names: readonly string[],
  { at, gpuUuid }: { readonly at: string; readonly gpuUuid: string },
): MigDevice[] {
  const table = gpu.mig;
  if (table === undefined) throw new ScenarioError(`${at}: ${gpu.name} has no MIG`);
  const used = { compute: 0, memory: 0 };
  const taken = new Set<number>();
  return names.map((name, index) => {
    const profile = table[name];
    if (profile === undefined) {
      throw new ScenarioError(
        `${at}[${index}]: ${gpu.name} has no profile "${name}"; known are ${Object.keys(table).join(", ")}`,
      );
    }
    const start = used.memory;
    used.compute += profile.computeSlices;
    used.memory += profile.memorySlices;
    const id = instanceIds[profile.memorySlices]?.find((candidate) => !taken.has(candidate));
    if (used.compute > 7 || used.memory > 8 || id === undefined) {
      throw new ScenarioError(
        `${at}: ${names.join(" + ")} take ${used.compute} compute and ${used.memory} memory slices; there are 7 and 8`,
      );
    }
    taken.add(id);
    return {
      index,
      uuid: uuid("MIG", `${gpuUuid}/${index}/${name}`),
      profileName: name,
      profile,
      gpuInstanceId: id,
      placement: [start, profile.memorySlices],
    };
  });
}
