import { type Driver, driverOf } from "./driver.ts";
import { ScenarioError } from "./errors.ts";
import { commandKinds, type Fault, type FaultEffect } from "./faults.ts";
import type { GpuProfile } from "./gpu-profile.ts";
import { type Load, parseLoad, parseProcess, type SimulatedProcess } from "./load.ts";
import { layOutMig, type MigDevice } from "./mig.ts";
import { list, number, object, oneOf, text } from "./parse.ts";
import { profiles } from "./profiles.ts";
import { digits, uuid } from "./seed.ts";

/** One GPU of the simulated machine. */
export interface SimulatedGpu {
  readonly index: number;
  readonly profile: GpuProfile;
  /** `GPU-…`. */
  readonly uuid: string;
  readonly serial: string;
  /** As nvidia-smi prints it: eight digits of domain. */
  readonly busId: string;
  readonly powerLimitWatts?: number;
  readonly pcieWidth: number;
  /** Present where MIG mode is on, empty where it is on without an instance. */
  readonly mig?: readonly MigDevice[];
  readonly load: Load;
  readonly processes: readonly SimulatedProcess[];
}

/** What the simulator plays: a machine, its load and its faults over time. */
export interface Scenario {
  readonly driver: Driver;
  readonly gpus: readonly SimulatedGpu[];
  readonly faults: readonly Fault[];
  /** The moment `afterMs` counts from, epoch milliseconds. */
  readonly startedAtMs?: number;
  /** A file whose modification time is that moment instead: touch it to start the faults again. */
  readonly stateFile?: string;
  /** File or folder of JSON that tells the load, read again for each sample. */
  readonly loadFile?: string;
}

const maxMs = 1e13;
const dayMs = 86_400_000;

/**
 * Reads a scenario that was JSON.
 * @param seed makes the UUIDs; `seed` in the scenario wins where `seedOverride` is absent.
 * @throws ScenarioError naming the key, what it holds and what it may hold.
 */
export function parseScenario(value: unknown, seedOverride?: string): Scenario {
  const raw = object(value, "", ["driver", "seed", "startedAt", "stateFile", "loadFile", "load", "gpus", "faults"]);
  const seed = seedOverride ?? (raw.seed === undefined ? "gpunode" : text(raw.seed, "seed"));
  const load = parseLoad(raw.load, "load");
  const gpus: SimulatedGpu[] = [];
  for (const [at, entry] of list(raw.gpus, "gpus").entries())
    gpus.push(...parseGpus(entry, `gpus[${at}]`, { seed, load, from: gpus.length }));
  const faults = list(raw.faults, "faults").map((entry, at) => parseFault(entry, `faults[${at}]`, gpus.length));
  return {
    driver: driverOf(raw.driver === undefined ? "580" : text(raw.driver, "driver")),
    gpus,
    faults,
    ...(raw.startedAt !== undefined && { startedAtMs: parseMoment(raw.startedAt, "startedAt") }),
    ...(raw.stateFile !== undefined && { stateFile: text(raw.stateFile, "stateFile") }),
    ...(raw.loadFile !== undefined && { loadFile: text(raw.loadFile, "loadFile") }),
  };
}

/** Epoch milliseconds of a number or an RFC 3339 time. */
export function parseMoment(value: unknown, at: string): number {
  const ms = typeof value === "string" ? (/^\d+$/.test(value) ? Number(value) : Date.parse(value)) : value;
  if (typeof ms !== "number" || !(ms >= 0 && ms < maxMs)) {
    throw new ScenarioError(`${at}: expected epoch milliseconds or an RFC 3339 time, found ${JSON.stringify(value)}`);
  }
  return ms;
}

interface GpuContext {
  readonly seed: string;
  readonly load: Load;
  /** Index of the first GPU of this entry. */
  readonly from: number;
}

function parseGpus(value: unknown, at: string, { seed, load, from }: GpuContext): SimulatedGpu[] {
  const raw = object(value, at, [
    "model",
    "count",
    "mig",
    "load",
    "processes",
    "powerLimitWatts",
    "pcieWidth",
    "busId",
  ]);
  const model = text(raw.model, `${at}.model`);
  const profile = profiles[model.toLowerCase()] ?? Object.values(profiles).find((known) => known.name === model);
  if (profile === undefined) {
    throw new ScenarioError(`${at}.model: "${model}" is not simulated; known are ${Object.keys(profiles).join(", ")}`);
  }
  const count = raw.count === undefined ? 1 : number(raw.count, `${at}.count`, [1, 32]);
  const names =
    raw.mig === undefined ? undefined : list(raw.mig, `${at}.mig`).map((name, i) => text(name, `${at}.mig[${i}]`));
  return Array.from({ length: count }, (_, offset) => {
    const index = from + offset;
    const id = uuid("GPU", `${seed}/${index}`);
    return {
      index,
      profile,
      uuid: id,
      serial: profile.serial ? `165${digits(id, 10)}` : "N/A",
      busId: raw.busId === undefined ? busIdOf(profile, index) : parseBusId(raw.busId, `${at}.busId`, count),
      pcieWidth: raw.pcieWidth === undefined ? 16 : number(raw.pcieWidth, `${at}.pcieWidth`, [1, 16]),
      load: raw.load === undefined ? load : parseLoad(raw.load, `${at}.load`),
      processes: list(raw.processes, `${at}.processes`).map((entry, i) => parseProcess(entry, `${at}.processes[${i}]`)),
      ...(raw.powerLimitWatts !== undefined && {
        powerLimitWatts: number(raw.powerLimitWatts, `${at}.powerLimitWatts`, [
          profile.watts.min ?? 1,
          profile.watts.max ?? 2000,
        ]),
      }),
      ...(names !== undefined && { mig: layOutMig(profile, names, { at: `${at}.mig`, gpuUuid: id }) }),
    };
  });
}

// Buses as an eight-way board has them, so that a machine's GPUs are not neighbours.
const buses = [0x1b, 0x43, 0x52, 0x61, 0x9d, 0xc3, 0xd1, 0xdf];

function busIdOf(profile: GpuProfile, index: number): string {
  if (profile.vramMiB === undefined) return "0000000F:01:00.0";
  const bus = (buses[index % buses.length] ?? 0) + Math.floor(index / buses.length);
  return `00000000:${bus.toString(16).toUpperCase().padStart(2, "0")}:00.0`;
}

function parseBusId(value: unknown, at: string, count: number): string {
  const given = text(value, at).toUpperCase();
  if (!/^[0-9A-F]{8}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-7]$/.test(given) || count !== 1) {
    throw new ScenarioError(`${at}: expected the form 00000000:1B:00.0 on an entry of one GPU, found "${given}"`);
  }
  return given;
}

const faultKinds = [
  "driverMissing",
  "libraryMissing",
  "mismatch",
  "permission",
  "noDevices",
  "allLost",
  "hang",
  "garbage",
  "lostGpu",
  "handleFailure",
  "hostileNames",
  "slow",
  "halfDocument",
  "override",
] as const satisfies readonly Fault["kind"][];

function parseFault(value: unknown, at: string, gpuCount: number): Fault {
  const raw = object(value, at, ["kind", "gpu", "ms", "end", "values", "afterMs", "forMs", "on"]);
  return {
    ...parseEffect(raw, at, gpuCount),
    afterMs: raw.afterMs === undefined ? 0 : number(raw.afterMs, `${at}.afterMs`, [0, maxMs]),
    ...(raw.forMs !== undefined && { forMs: number(raw.forMs, `${at}.forMs`, [1, maxMs]) }),
    ...(raw.on !== undefined && {
      on: list(raw.on, `${at}.on`).map((kind, i) => oneOf(kind, `${at}.on[${i}]`, commandKinds)),
    }),
  };
}

function parseEffect(raw: Readonly<Record<string, unknown>>, at: string, gpuCount: number): FaultEffect {
  const kind = oneOf(raw.kind, `${at}.kind`, faultKinds);
  const gpu = () => (raw.gpu === undefined ? 0 : number(raw.gpu, `${at}.gpu`, [0, Math.max(0, gpuCount - 1)]));
  switch (kind) {
    case "lostGpu":
    case "handleFailure":
    case "hostileNames":
      return { kind, gpu: gpu() };
    case "slow":
      return { kind, ms: number(raw.ms, `${at}.ms`, [1, dayMs]) };
    case "halfDocument":
      return { kind, end: raw.end === undefined ? "exit" : oneOf(raw.end, `${at}.end`, ["exit", "hang"]) };
    case "override": {
      const values = object(raw.values, `${at}.values`, Object.keys(raw.values ?? {}));
      return {
        kind,
        gpu: gpu(),
        values: Object.fromEntries(Object.entries(values).map(([key, v]) => [key, text(v, `${at}.values.${key}`)])),
      };
    }
    default:
      return { kind };
  }
}
