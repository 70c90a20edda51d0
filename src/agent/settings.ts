import type { DrainMemory } from "../preemption/coordinator-drain.ts";
import type { Store } from "../store/store.ts";

/** What the agent remembers over restarts besides workloads and events: one setting each. */
const HEARD_AT = "heard_at";
const OWNER = "owner";
const COORDINATOR_DRAIN = "coordinator_drain";
const CLOCK = "clock";
const WELCOMED = "welcomed:";
const HEALTH = "health:";
const RELIABILITY = "reliability";
const OPEN_IMAGES = "open_images";
const BESIDE_GPUS = "beside_gpus";

/** A setting that the agent can do without until the disk takes it: nothing fails where it does not. */
function lenient(store: Store, key: string, value: string): void {
  try {
    store.set(key, value);
  } catch {
    // The store tells of a disk that refuses; the value is written again when it changes.
  }
}

/** When the coordinator was last heard, by the steady clock in milliseconds. */
export function heardMemory(store: Store) {
  return {
    get(): number | undefined {
      const saved = Number(store.get(HEARD_AT));
      return Number.isFinite(saved) && saved > 0 ? saved : undefined;
    },
    set: (at: number | undefined) => {
      if (at !== undefined) lenient(store, HEARD_AT, String(at));
    },
  };
}

export function coordinatorDrainMemory(store: Store): DrainMemory {
  return {
    get: () => store.get(COORDINATOR_DRAIN) !== undefined,
    set: (isDraining) => store.set(COORDINATOR_DRAIN, isDraining ? "yes" : undefined),
  };
}

/** One setting as the rooms that remember something take it. */
function setting(store: Store, key: string) {
  return { get: () => store.get(key), set: (value: string | undefined) => store.set(key, value) };
}

export const ownerMemory = (store: Store) => setting(store, OWNER);
export const clockMemory = (store: Store) => setting(store, CLOCK);
/** What the judge of the GPUs' health remembers, under names of its own. */
export function healthMemory(store: Store) {
  return {
    get: (key: string) => store.get(HEALTH + key),
    set: (key: string, value: string) => lenient(store, HEALTH + key, value),
  };
}

/** The record of how reliable the node was. */
export function reliabilityMemory(store: Store) {
  return { get: () => store.get(RELIABILITY), set: (text: string) => lenient(store, RELIABILITY, text) };
}

/** Images that were had without a login. */
export function openImagesMemory(store: Store) {
  return { get: () => store.get(OPEN_IMAGES), set: (text: string) => lenient(store, OPEN_IMAGES, text) };
}

/** What a driver and its GPUs tell only once. */
export function besideMemory(store: Store, bootId: string) {
  return { bootId, get: () => store.get(BESIDE_GPUS), set: (text: string) => lenient(store, BESIDE_GPUS, text) };
}

/** Coordinators that have once welcomed a key of this node. */
export function coordinatorMemory(store: Store, now: () => number) {
  const name = (coordinator: string, nodeId: string) => `${WELCOMED}${nodeId} ${coordinator}`;
  return {
    hasWelcomed: (coordinator: string, nodeId: string) => store.get(name(coordinator, nodeId)) !== undefined,
    rememberWelcome: (coordinator: string, nodeId: string) =>
      lenient(store, name(coordinator, nodeId), new Date(now()).toISOString()),
  };
}
