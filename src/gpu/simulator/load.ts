import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { list, number, object, text } from "./parse.ts";

/** A process with a context on a GPU. */
export interface SimulatedProcess {
  readonly pid: number;
  readonly name: string;
  readonly usedMiB: number;
  /** C compute, G graphics. */
  readonly type: string;
}

/** How busy a GPU is over time, where nothing else says so. */
export type Load =
  | { readonly kind: "constant"; readonly percent: number }
  | { readonly kind: "wave"; readonly minPercent: number; readonly maxPercent: number; readonly periodMs: number }
  | {
      readonly kind: "points";
      readonly points: readonly { readonly atMs: number; readonly percent: number }[];
      readonly repeat: boolean;
    };

/** What one entry of a load file says of a GPU or MIG device. */
export interface FileLoad {
  readonly utilizationPercent?: number;
  readonly vramUsedMiB?: number;
  readonly processes: readonly SimulatedProcess[];
}

const dayMs = 86_400_000;
const percent = [0, 100] as const;

/**
 * A number is a constant; `{minPercent, maxPercent, periodMs}` a sine; `{points: [{atMs, utilizationPercent}], repeat}` straight
 * lines between points. @throws ScenarioError
 */
export function parseLoad(value: unknown, at: string): Load {
  if (value === undefined) return { kind: "constant", percent: 0 };
  if (typeof value === "number") return { kind: "constant", percent: number(value, at, percent) };
  const raw = object(value, at, ["minPercent", "maxPercent", "periodMs", "points", "repeat"]);
  if (raw.points !== undefined) {
    const points = list(raw.points, `${at}.points`).map((entry, i) => {
      const point = object(entry, `${at}.points[${i}]`, ["atMs", "utilizationPercent"]);
      return {
        atMs: number(point.atMs, `${at}.points[${i}].atMs`, [0, dayMs]),
        percent: number(point.utilizationPercent, `${at}.points[${i}].utilizationPercent`, percent),
      };
    });
    return { kind: "points", points: points.sort((a, b) => a.atMs - b.atMs), repeat: raw.repeat === true };
  }
  return {
    kind: "wave",
    minPercent: number(raw.minPercent, `${at}.minPercent`, percent),
    maxPercent: number(raw.maxPercent, `${at}.maxPercent`, percent),
    periodMs: number(raw.periodMs, `${at}.periodMs`, [100, dayMs]),
  };
}

/** A process of a scenario or of a load file. @throws ScenarioError */
export function parseProcess(value: unknown, at: string): SimulatedProcess {
  const raw = object(value, at, ["pid", "name", "usedMiB", "type"]);
  return {
    pid: number(raw.pid, `${at}.pid`, [0, 4_194_304]),
    name: raw.name === undefined ? "python" : text(raw.name, `${at}.name`),
    usedMiB: raw.usedMiB === undefined ? 0 : number(raw.usedMiB, `${at}.usedMiB`, [0, 1e7]),
    type: raw.type === undefined ? "C" : text(raw.type, `${at}.type`),
  };
}

/** Utilization in percent `elapsedMs` after the scenario's start. */
export function percentAt(load: Load, elapsedMs: number): number {
  if (load.kind === "constant") return load.percent;
  if (load.kind === "wave") {
    const swing = (1 - Math.cos((2 * Math.PI * elapsedMs) / load.periodMs)) / 2;
    return load.minPercent + (load.maxPercent - load.minPercent) * swing;
  }
  const last = load.points.at(-1);
  if (last === undefined) return 0;
  const time = load.repeat && last.atMs > 0 ? elapsedMs % last.atMs : elapsedMs;
  const next = load.points.findIndex((point) => point.atMs > time);
  const after = load.points[next];
  const before = load.points[next - 1];
  if (after === undefined) return last.percent;
  if (before === undefined) return after.percent;
  return before.percent + ((after.percent - before.percent) * (time - before.atMs)) / (after.atMs - before.atMs);
}

/**
 * What the load file says now, by UUID (`GPU-…`, `MIG-…`), index or `*`. Of a folder every `*.json` counts, so that each
 * container can write its own; entries for the same GPU add up. A file that is missing or half written says nothing:
 * it is being replaced, and the next sample reads it whole.
 */
export function readLoadFile(path: string): Map<string, FileLoad> {
  const loads = new Map<string, FileLoad>();
  for (const file of filesOf(path)) {
    for (const [key, load] of entriesOf(file)) {
      const before = loads.get(key);
      loads.set(key, before === undefined ? load : add(before, load));
    }
  }
  return loads;
}

/** Two loads on the same GPU. */
export function add(a: FileLoad, b: FileLoad): FileLoad {
  const sum = (x: number | undefined, y: number | undefined) => (x === undefined ? y : x + (y ?? 0));
  const utilization = sum(a.utilizationPercent, b.utilizationPercent);
  const vram = sum(a.vramUsedMiB, b.vramUsedMiB);
  return {
    processes: [...a.processes, ...b.processes],
    ...(utilization !== undefined && { utilizationPercent: Math.min(100, utilization) }),
    ...(vram !== undefined && { vramUsedMiB: vram }),
  };
}

function filesOf(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    const names = readdirSync(path).filter((name) => name.endsWith(".json"));
    return names.sort().map((name) => join(path, name));
  } catch {
    return [];
  }
}

function entriesOf(file: string): [string, FileLoad][] {
  try {
    const raw: unknown = JSON.parse(readFileSync(file, "utf8"));
    const entries = object(raw, "", Object.keys(raw ?? {}));
    return Object.entries(entries).map(([key, entry]) => [key, parseFileLoad(entry, key)]);
  } catch {
    return [];
  }
}

function parseFileLoad(value: unknown, at: string): FileLoad {
  const raw = object(value, at, ["utilizationPercent", "vramUsedMiB", "processes"]);
  const processes = list(raw.processes, `${at}.processes`).map((entry, i) =>
    parseProcess(entry, `${at}.processes[${i}]`),
  );
  const held = processes.reduce((sum, process) => sum + process.usedMiB, 0);
  const vram = raw.vramUsedMiB === undefined ? held : number(raw.vramUsedMiB, `${at}.vramUsedMiB`, [0, 1e7]);
  return {
    processes,
    ...(raw.utilizationPercent !== undefined && {
      utilizationPercent: number(raw.utilizationPercent, `${at}.utilizationPercent`, percent),
    }),
    ...((raw.vramUsedMiB !== undefined || processes.length > 0) && { vramUsedMiB: vram }),
  };
}
