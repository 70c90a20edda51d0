import { setTimeout as pause } from "node:timers/promises";
import { type FactName, type Gathered, isMissing, type Missing } from "./check.ts";
import type { Facts } from "./facts.ts";
import { config } from "./gather/config.ts";
import { engine, toolkit } from "./gather/containers.ts";
import { coordinator } from "./gather/coordinator.ts";
import { disk, diskSpeed, state } from "./gather/disk.ts";
import { driver, gpus, kernelLog } from "./gather/gpus.ts";
import { clock, memory, sleep, system, upgrades } from "./gather/host.ts";
import { network } from "./gather/network.ts";
import type { Doors, Had, Reader } from "./gather/reader.ts";
import { daemon, service } from "./gather/service.ts";
import { sight } from "./gather/sight.ts";
import { firewall, trial } from "./gather/trial.ts";

const READERS: { readonly [N in FactName]: Reader<N> } = {
  system,
  config,
  service,
  daemon,
  driver,
  gpus,
  kernelLog,
  engine,
  toolkit,
  sight,
  firewall,
  trial,
  disk,
  diskSpeed,
  state,
  network,
  coordinator,
  clock,
  sleep,
  memory,
  upgrades,
};

/** All of it takes no longer, whatever hangs. Without test containers it is a second or two. */
const TOTAL_MS = 30_000;

/** A reader that was given up has so long to put away what it made. */
const CLEANUP_MS = 5_000;

export interface GatherOptions {
  signal: AbortSignal;
  /** So many of so many facts are there. */
  onProgress?(done: number, all: number): void;
}

/**
 * Gathers these facts, and those they depend on, all at once and each in its own time. Never rejects. What was begun
 * has ended when it resolves, except what the kernel or the engine does not let go of.
 */
export async function gather(
  names: readonly FactName[],
  doors: Doors,
  { signal, onProgress }: GatherOptions,
): Promise<Gathered> {
  const whole = new AbortController();
  const give = (why: string) => () => whole.abort(why);
  const interrupted = give("it was interrupted");
  const timer = setTimeout(give(`there was no time left for it (${TOTAL_MS / 1000} s in all)`), TOTAL_MS);
  signal.addEventListener("abort", interrupted, { once: true });
  if (signal.aborted) interrupted();
  const asked = new Map<FactName, Promise<unknown>>();
  const gathered = new Map<FactName, unknown>();
  const had = ((name) => (isMissing(gathered.get(name)) ? undefined : gathered.get(name))) as Had;

  function ask(name: FactName): Promise<unknown> {
    const running = asked.get(name) ?? begin(name);
    asked.set(name, running);
    return running;
  }

  async function begin(name: FactName): Promise<void> {
    // A turn later, so that all are counted before the first one is there.
    await Promise.resolve();
    const reader = READERS[name] as Reader<FactName>;
    await Promise.all((reader.after ?? []).map(ask));
    gathered.set(name, await within(reader, doors, had, whole.signal));
    onProgress?.(gathered.size, asked.size);
  }

  await Promise.all(names.map(ask));
  clearTimeout(timer);
  signal.removeEventListener("abort", interrupted);
  return Object.fromEntries(gathered) as Gathered;
}

async function within(
  reader: Reader<FactName>,
  doors: Doors,
  had: Had,
  signal: AbortSignal,
): Promise<Facts[FactName] | Missing> {
  const limit = new AbortController();
  const late = Promise.withResolvers<Missing>();
  const end = () => {
    late.resolve({ missing: String(signal.reason) });
    limit.abort();
  };
  signal.addEventListener("abort", end, { once: true });
  if (signal.aborted) end();
  const timer = setTimeout(() => {
    late.resolve({ missing: `it did not answer within ${reader.limitMs / 1000} s` });
    limit.abort();
  }, reader.limitMs);
  try {
    const reading = (async () => await reader.read(doors, had, limit.signal))();
    const safe = reading.catch((error: unknown) => ({
      missing: error instanceof Error ? error.message : String(error),
    }));
    const first = await Promise.race([safe, late.promise]);
    // What it began it has to end: a container, a file.
    if (limit.signal.aborted) await Promise.race([safe, pause(CLEANUP_MS, undefined, { ref: false })]);
    return first;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    limit.abort();
  }
}
