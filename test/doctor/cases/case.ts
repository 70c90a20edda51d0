import type { Verdict } from "../../../src/doctor/check.ts";
import type { Facts } from "../../../src/doctor/facts.ts";
import type { Health } from "../../../src/protocol/gpu-health.ts";

/** A machine with one thing wrong, and what is said of it. */
export interface Case {
  id: string;
  when: string;
  facts(good: Facts): Partial<Facts>;
  verdict: Verdict;
  found: RegExp;
  /** A step that must be among those of its fix, as root types it. */
  fix?: RegExp;
  auto?: "safe" | "named";
}

export const DAY_MS = 86_400_000;

/** The running daemon with this changed. */
export function snapshot(
  good: Facts,
  change: (snapshot: Extract<Facts["daemon"], { state: "running" }>["snapshot"]) => object,
) {
  if (good.daemon.state !== "running") throw new Error("the healthy one runs");
  return { ...good.daemon, snapshot: { ...good.daemon.snapshot, ...change(good.daemon.snapshot) } };
}

export function problem(good: Facts, code: string, message: string): Partial<Facts> {
  return { daemon: snapshot(good, () => ({ problems: [{ code, message }] })) };
}

export const away: Facts["daemon"] = { state: "away", message: "the daemon is not running" };

export function inventory(good: Facts, change: Partial<Facts["gpus"]["inventory"]>): Partial<Facts> {
  return { gpus: { ...good.gpus, inventory: { ...good.gpus.inventory, ...change } } };
}

/** GPU 0 with this changed. */
export function gpu0(good: Facts, change: object): Partial<Facts> {
  return inventory(good, { gpus: good.gpus.inventory.gpus.map((one, at) => (at === 0 ? { ...one, ...change } : one)) });
}

export function raw(good: Facts, path: string, value: string): Partial<Facts> {
  const { raw: before } = good.gpus.inventory;
  return inventory(good, {
    raw: new Map([...(before ?? [])].map(([uuid, values]) => [uuid, new Map([...values, [path, value]])])),
  });
}

const noGpus = { gpus: [], samples: [], rows: 0, processes: new Map() };

export function smiFails(
  good: Facts,
  code: "not_found" | "no_driver" | "driver_mismatch" | "timeout",
  message: string,
) {
  return inventory(good, { ...noGpus, problems: [{ code, message }], failed: { code, message } });
}

export const ill = (health: Health) => ({ health });

export function about(good: Facts, change: object): Partial<Facts> {
  if (good.engine.about === undefined) throw new Error("the healthy one answers");
  return { engine: { ...good.engine, about: { ...good.engine.about, ...change } } };
}

export function info(good: Facts, change: object): Partial<Facts> {
  return about(good, { info: { ...good.engine.about?.info, ...change } });
}

export function engineAway(good: Facts, problem: string, change: object = {}): Partial<Facts> {
  const { about: _, ...rest } = good.engine;
  return { engine: { ...rest, problem, ...change } };
}

export function config(good: Facts, change: object): Facts["config"] {
  return { ...good.config, config: { ...good.config.config, ...change } };
}

export function unit(good: Facts, change: object): Partial<Facts> {
  if (good.service.unit === undefined) throw new Error("the healthy one has a unit");
  return { service: { ...good.service, unit: { ...good.service.unit, ...change } } };
}

export const os = (good: Facts, id: string, like: string[]): Facts["system"] => ({
  ...good.system,
  os: { id, like, name: id },
});
