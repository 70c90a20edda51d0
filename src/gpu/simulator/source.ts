import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { ScenarioError } from "./errors.ts";
import { presets } from "./presets.ts";
import { parseMoment, parseScenario, type Scenario } from "./scenario.ts";

/** Environment of the simulator; everything else it is told stands in the scenario. */
export interface SimulatorEnvironment {
  /** Preset name, path of a JSON file, or the JSON itself. */
  readonly GPUNODE_SIM_SCENARIO?: string | undefined;
  /** Other UUIDs for the same scenario: a second node with a preset needs them. */
  readonly GPUNODE_SIM_SEED?: string | undefined;
  /** In place of the scenario's `loadFile`. */
  readonly GPUNODE_SIM_LOAD_FILE?: string | undefined;
  /** The time it is, for tests: epoch milliseconds or RFC 3339; runs on from there. */
  readonly GPUNODE_SIM_NOW?: string | undefined;
}

/** A scenario and the moment its faults count from; `current` reads the file again when it was written. */
export interface ScenarioSource {
  current(): Scenario;
  /** Milliseconds since the scenario's start. */
  elapsedMs(nowMs: number): number;
}

/** Used where the environment names no scenario. */
export const defaultPreset = "h100x8";

/** @throws ScenarioError where there is no such preset or file, or the file is not a scenario. */
export function openScenario(env: SimulatorEnvironment): ScenarioSource {
  const named = env.GPUNODE_SIM_SCENARIO || defaultPreset;
  if (Object.hasOwn(presets, named)) return fixed(presets[named], env);
  if (named.startsWith("{")) return fixed(jsonOf(named, "GPUNODE_SIM_SCENARIO"), env);
  const path = resolve(named);
  let modifiedMs = modifiedAt(path);
  if (modifiedMs === undefined) {
    throw new ScenarioError(`scenario "${named}" is neither a preset (${Object.keys(presets).join(", ")}) nor a file`);
  }
  let scenario = load(path, env);
  return {
    current() {
      const latest = modifiedAt(path);
      if (latest !== undefined && latest !== modifiedMs) {
        try {
          scenario = load(path, env);
          modifiedMs = latest;
        } catch (error) {
          // Half written while we read: the scenario that was whole stays in force until the next sample.
          if (!(error instanceof ScenarioError)) throw error;
        }
      }
      return scenario;
    },
    elapsedMs: (nowMs) => nowMs - startOf(scenario, modifiedMs ?? 0),
  };
}

/** `Date.now`, or a clock that starts at `GPUNODE_SIM_NOW`. */
export function clockOf(env: SimulatorEnvironment): () => number {
  if (!env.GPUNODE_SIM_NOW) return Date.now;
  const from = parseMoment(env.GPUNODE_SIM_NOW, "GPUNODE_SIM_NOW");
  const started = Date.now();
  return () => from + Date.now() - started;
}

function fixed(value: unknown, env: SimulatorEnvironment): ScenarioSource {
  const scenario = withEnvironment(parseScenario(value, env.GPUNODE_SIM_SEED || undefined), env, process.cwd());
  return { current: () => scenario, elapsedMs: (nowMs) => nowMs - startOf(scenario, 0) };
}

function load(path: string, env: SimulatorEnvironment): Scenario {
  const scenario = parseScenario(jsonOf(readFileSync(path, "utf8"), path), env.GPUNODE_SIM_SEED || undefined);
  return withEnvironment(scenario, env, dirname(path));
}

/** Paths are relative to the scenario file, or to where we run. */
function withEnvironment(scenario: Scenario, env: SimulatorEnvironment, folder: string): Scenario {
  const loadFile = env.GPUNODE_SIM_LOAD_FILE
    ? resolve(env.GPUNODE_SIM_LOAD_FILE)
    : scenario.loadFile && resolve(folder, scenario.loadFile);
  const stateFile = scenario.stateFile && resolve(folder, scenario.stateFile);
  return { ...scenario, ...(loadFile && { loadFile }), ...(stateFile && { stateFile }) };
}

function startOf(scenario: Scenario, otherwise: number): number {
  const touched = scenario.stateFile === undefined ? undefined : modifiedAt(scenario.stateFile);
  return touched ?? scenario.startedAtMs ?? otherwise;
}

function modifiedAt(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs;
}

function jsonOf(text: string, at: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ScenarioError(`${at} is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}
