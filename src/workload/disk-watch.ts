import { posix } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { GpunodeError } from "../protocol/errors.ts";
import type { Limits } from "./limits.ts";
import type { DiskAccount, Engine, Log } from "./needs.ts";
import { recordKey, type WorkloadRecord } from "./record.ts";
import type { Runner } from "./runner.ts";

/**
 * Holds running workloads to `diskMiB` by looking: few engines can do it by a quota, and none for volumes. What counts is what a workload
 * has added to this disk: its own layer, volumes that are its alone (the image's, the inbox), and what its caches have grown by since it
 * began.
 *
 * A look costs the engine a walk through all those files, so the pause after it is never shorter than twenty times the look itself.
 */
export interface DiskWatchDoors {
  engine: Pick<Engine, "diskAccount">;
  runners(): readonly Pick<Runner, "record" | "order">[];
  limits(record: WorkloadRecord): Pick<Limits, "diskMiB">;
  log: Pick<Log, "warn">;
  /** Shortest pause between two looks, in milliseconds; default 10 000. */
  everyMs?: number;
}

const EVERY_MS = 10_000;
/** At most a twentieth of the time is spent looking. */
const CALM = 20;
/** Whatever grace it asked for: it goes on writing meanwhile. */
const GRACE_MOST_SECONDS = 10;
const MIB = 1024 * 1024;

export function watchDisk(doors: DiskWatchDoors): AsyncDisposable {
  const stop = new AbortController();
  const running = loop(doors, stop.signal);
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

async function loop(doors: DiskWatchDoors, signal: AbortSignal): Promise<void> {
  const { everyMs = EVERY_MS } = doors;
  const caches = new CacheGrowth();
  let pauseMs = 0;
  // Once at the start and once after the last has ended, so that what caches hold is known before the next begins.
  let isDue = true;
  let isTold = false;
  while (!signal.aborted) {
    await sleep(pauseMs, undefined, { signal }).catch(() => undefined);
    const isBusy = doors.runners().some(({ record }) => record.state === "running");
    if (signal.aborted || !(isBusy || isDue)) {
      pauseMs = everyMs;
      continue;
    }
    const began = performance.now();
    try {
      const account = await doors.engine.diskAccount(signal);
      judge(account, caches, doors);
      isTold = false;
      isDue = isBusy;
    } catch (error) {
      if (signal.aborted) return;
      // Away, which others tell; or another account of the disk is under way, of the owner's asking: the next look will do.
      const isAway = error instanceof GpunodeError && error.code === "engine_unavailable";
      if (!isAway && !isTold)
        doors.log.warn(
          { err: error },
          "could not see what workloads have written, so their disk limits are not held; trying again",
        );
      isTold = !isAway;
    }
    pauseMs = Math.max(everyMs, (performance.now() - began) * CALM);
  }
}

/**
 * What caches grew by while a workload ran. Exact for a cache that is new since the last look, or that nobody had mounted then; of one that an
 * earlier workload was still writing to it counts from the first look on.
 */
class CacheGrowth {
  /** By record and volume: what it held when the record began. */
  #before = new Map<string, number>();
  /** Volumes of the last look; undefined before the first. */
  #last: { all: ReadonlySet<string>; idle: ReadonlyMap<string, number> } | undefined;

  /** Bytes that volume `name` has grown by since `record` was first seen with it. */
  of(record: WorkloadRecord, name: string, bytes: number): number {
    const key = `${recordKey(record)} ${name}`;
    const isNew = this.#last !== undefined && !this.#last.all.has(name);
    const before = this.#before.get(key) ?? (isNew ? 0 : (this.#last?.idle.get(name) ?? bytes));
    this.#before.set(key, before);
    return Math.max(0, bytes - before);
  }

  /** The look is over; `live` are the records that go on. */
  looked({ containers, volumeBytes }: DiskAccount, live: readonly WorkloadRecord[]): void {
    const mounted = new Set(containers.flatMap(({ volumes }) => volumes.map(({ name }) => name)));
    const idle = new Map([...volumeBytes].filter(([name]) => !mounted.has(name)));
    this.#last = { all: new Set(volumeBytes.keys()), idle };
    const keys = new Set(live.map(recordKey));
    for (const key of this.#before.keys()) if (!keys.has(key.split(" ")[0] ?? "")) this.#before.delete(key);
  }
}

/** Ends those who have written too much. */
function judge(account: DiskAccount, growth: CacheGrowth, { runners, limits, log }: DiskWatchDoors): void {
  const running = runners().filter(({ record }) => record.state === "running");
  for (const runner of running) {
    const { record } = runner;
    const own = account.containers.find(({ id }) => id === record.containerId);
    if (own === undefined || record.stop !== undefined) continue;
    const caches = new Set(record.spec.caches.map(({ path }) => posix.resolve(path)));
    const written = own.volumes.map(({ name, path }) => {
      const bytes = account.volumeBytes.get(name) ?? 0;
      return caches.has(posix.resolve(path)) ? growth.of(record, name, bytes) : bytes;
    });
    const bytes = written.reduce((sum, each) => sum + each, own.layerBytes);
    const { diskMiB } = limits(record);
    if (bytes <= diskMiB * MIB) continue;
    const message = `has written ${Math.ceil(bytes / MIB)} MiB to the disk: the limit is ${diskMiB} MiB; ask for more resources.diskMiB, or write less`;
    log.warn({ workload: record.id }, `workload ended: it ${message}`);
    try {
      const graceSeconds = Math.min(record.spec.stop.graceSeconds, GRACE_MOST_SECONDS);
      runner.order({ outcome: "failed", reason: "disk_limit", message, graceSeconds });
    } catch (error) {
      log.warn(
        { workload: record.id, err: error },
        "the end of a workload that wrote too much could not be recorded; trying again",
      );
    }
  }
  growth.looked(
    account,
    running.map(({ record }) => record),
  );
}
