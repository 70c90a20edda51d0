import { ScenarioError } from "./errors.ts";

/** One driver release, and what its nvidia-smi prints differently. */
export interface Driver {
  /** As printed, e.g. `580.105.08`. */
  readonly version: string;
  readonly major: number;
  readonly minor: number;
  /** The version NVML gives of itself: the first two parts. */
  readonly nvml: string;
  readonly cuda: string;
  readonly dtd: string;
  /** Fields that came with a late 580 release and in 595, but are not in 590. */
  readonly late580: boolean;
}

// Release of each generation that stands for it, and the CUDA version it prints. Source: NVIDIA CUDA release notes, table
// "CUDA Toolkit and Corresponding Driver Versions".
const generations: readonly (readonly [major: number, version: string, cuda: string])[] = [
  [470, "470.256.02", "11.4"],
  [510, "510.108.03", "11.6"],
  [515, "515.105.01", "11.7"],
  [525, "525.147.05", "12.0"],
  [535, "535.261.03", "12.2"],
  [545, "545.29.06", "12.3"],
  [550, "550.163.01", "12.4"],
  [555, "555.42.02", "12.5"],
  [560, "560.35.03", "12.6"],
  [565, "565.57.01", "12.7"],
  [570, "570.148.08", "12.8"],
  [575, "575.57.08", "12.9"],
  [580, "580.105.08", "13.0"],
  [590, "590.48.01", "13.1"],
  [595, "595.91.07", "13.2"],
];

/**
 * The driver a scenario names: a whole version (`580.105.08`) or a generation (`580`).
 * @throws ScenarioError outside of what is simulated (470 to 599).
 */
export function driverOf(text: string): Driver {
  const match = /^(\d{3})(?:\.(\d{1,3})(?:\.\d{1,3})?)?$/.exec(text);
  const major = Number(match?.[1] ?? 0);
  const generation = generations.findLast(([floor]) => floor <= major);
  if (match === null || generation === undefined || major > 599) {
    throw new ScenarioError(
      `driver "${text}" is not simulated: give a version from 470 to 599, such as "580.105.08" or "580"`,
    );
  }
  const version =
    match[2] === undefined ? (generations.find(([exact]) => exact === major)?.[1] ?? `${major}.10`) : text;
  const minor = Number(version.split(".")[1]);
  return {
    version,
    major,
    minor,
    nvml: version.split(".").slice(0, 2).join("."),
    cuda: generation[2],
    dtd: major >= 580 ? "v13" : major >= 520 ? "v12" : "v11",
    late580: (major >= 580 && major < 590 && minor >= 159) || major >= 595,
  };
}
