import { setTimeout as sleep } from "node:timers/promises";
import type { Gpu, GpuTelemetry } from "../protocol/gpu.ts";
import { Bell } from "./nvidia/bell.ts";
import { type KeptText, keepBeside, recallBeside } from "./nvidia/beside-memory.ts";
import { type Inventory, readInventory } from "./nvidia/inventory.ts";
import type { Smi, SmiProblem } from "./nvidia/runner.ts";
import { samples as sampleStream } from "./nvidia/sampler.ts";
import { withMigMemory } from "./nvidia/xml-sample.ts";
import { createShapes } from "./shape.ts";

/** A full read costs some 100 ms of nvidia-smi; what changes faster comes with the samples. */
const HEALTH_INTERVAL_MS = 60_000;
/** While there is a problem it is asked more often, so that a repaired driver is seen soon. */
const RETRY_EVERY_MS = 5_000;
/** Early reads come no closer together than this. */
const REFRESH_LEAST_MS = 5_000;
/** A daemon whose nvidia-smi hangs is up all the same after this long. */
const FIRST_READ_WAIT_MS = 5_000;
/** So much of a GPU's memory changes hands before it is asked again whose it is. */
const VRAM_MOVED_MIB = 64;

export interface WatchOptions {
  /** What is told of the GPUs or their problems has changed. */
  onChange(): void;
  /** A read is over, a failed one too (`inventory.failed`). Not called for one that a pause cut short. */
  onRead?(inventory: Inventory): void;
  /** Time between full reads; 60 000 where absent. */
  healthIntervalMs?: number;
  /** Where it is kept over restarts what a driver and its GPUs tell only once; holds for the boot of this id. */
  kept?: KeptText & { bootId: string };
  /** Starts paused: the device is not touched before `resume`. */
  paused?: boolean;
}

/** The GPUs as last read, kept fresh. */
export interface GpuWatch extends AsyncDisposable {
  /**
   * The last read. After one that failed: the GPUs seen before, failed and not allocatable. While paused: the GPUs as they were, not
   * allocatable, without samples.
   */
  readonly inventory: Inventory;
  /** Asks for a full read before its time; at most one in 5 s, a later one otherwise. */
  refresh(): void;
  /**
   * Lets go of the GPUs. Resolves when no nvidia-smi of ours runs any more, or after 10 s with one stuck in the driver, which
   * `inventory.problems` then tells. None is started until `resume`.
   */
  pause(): Promise<void>;
  /** Reads at once; the GPUs are allocatable again with that read. */
  resume(): void;
  readonly paused: boolean;
  /**
   * Sets of GPU samples until the signal: one stream that is started anew when driver, GPUs or MIG instances change, and waits while
   * there is nothing to sample. The memory of MIG instances is that of the last full read; memory that changes hands makes an early
   * one. Never throws.
   */
  samples(options: { intervalMs: number; signal: AbortSignal }): AsyncGenerator<GpuTelemetry[]>;
}

/**
 * Reads the GPUs and goes on reading them. Resolves after the first read, or after 5 s without one, or at once where it starts
 * paused. Never rejects: what goes wrong is in `inventory.problems`.
 */
export async function watchGpus(smi: Smi, options: WatchOptions): Promise<GpuWatch> {
  const { onChange, onRead, kept, healthIntervalMs = HEALTH_INTERVAL_MS } = options;
  const stop = new AbortController();
  const { signal } = stop;
  const bell = new Bell();
  const shapes = createShapes();
  const memory = kept === undefined ? {} : recallBeside(kept, kept.bootId);
  const first = Promise.withResolvers<void>();
  /** As read; `inventory` is what is told of it. */
  let last = nothingRead(`${smi.path} has not answered yet; it is asked again`);
  let inventory = last;
  let streamProblem: SmiProblem | undefined;
  let pause: { problem: SmiProblem } | undefined;
  /** Resumed, and not read since. */
  let isStale = false;
  let isWanted = false;
  let readAt = Number.NEGATIVE_INFINITY;
  let pauses = 0;

  const tell = () => {
    const before = inventory;
    inventory = told(last, streamProblem, pause?.problem ?? (isStale ? PAUSED_UNTIL_READ : undefined));
    if (differs(inventory, before)) onChange();
  };
  const refresh = () => {
    isWanted = true;
    bell.ring();
  };
  const startPause = () => {
    pauses += 1;
    pause = { problem: { code: "sampling_paused", message: PAUSED } };
    shapes.set(undefined);
  };
  if (options.paused === true) {
    startPause();
    last = { ...last, problems: [] };
    tell();
    void smi.pause();
    first.resolve();
  }

  const loop = async () => {
    while (!signal.aborted) {
      if (pause !== undefined) {
        await bell.wait(signal);
        continue;
      }
      const dueMs = nextRead(
        readAt,
        isWanted,
        last.problems.length > 0 ? Math.min(RETRY_EVERY_MS, healthIntervalMs) : healthIntervalMs,
      );
      const waitMs = dueMs - performance.now();
      if (waitMs > 0) {
        await bell.wait(signal, waitMs);
        continue;
      }
      isWanted = false;
      readAt = performance.now();
      const before = pauses;
      const read = await readInventory(smi, { signal, memory });
      if (signal.aborted) break;
      // Cut by a pause: it tells nothing of the GPUs.
      if (pauses !== before) continue;
      last = keeping(read, last.gpus);
      isStale = false;
      tell();
      first.resolve();
      if (read.failed === undefined) {
        shapes.set(read);
        if (kept !== undefined) keepBeside(kept, kept.bootId, memory);
      }
      onRead?.(inventory);
    }
  };
  const running = loop();
  const patience = new AbortController();
  const waited = sleep(FIRST_READ_WAIT_MS, undefined, { signal: patience.signal }).catch(() => undefined);
  await Promise.race([first.promise, waited]);
  patience.abort();

  const moved = vramMoved();
  /** GPUs in the newest set of the stream. */
  let setSize: number | undefined;
  return {
    get inventory() {
      return inventory;
    },
    refresh,
    async pause() {
      if (pause === undefined) {
        startPause();
        tell();
        bell.ring();
      }
      const mine = pause;
      const stuck = await smi.pause();
      if (pause !== mine || mine === undefined || stuck.length === 0) return;
      pause = {
        problem: {
          code: "sampling_paused",
          message: `${PAUSED}; nvidia-smi (pid ${stuck.join(", ")}) is stuck in the driver and still holds the device: a reboot may be needed`,
        },
      };
      tell();
    },
    resume() {
      if (pause === undefined) return;
      smi.resume();
      pause = undefined;
      isStale = true;
      readAt = Number.NEGATIVE_INFINITY;
      tell();
      bell.ring();
    },
    get paused() {
      return pause !== undefined;
    },
    async *samples({ intervalMs, signal: until }) {
      const onProblem = (problem: SmiProblem | undefined) => {
        streamProblem = problem?.code === "sampling_paused" ? undefined : problem;
        if (streamProblem !== undefined) refresh();
        tell();
      };
      try {
        for await (const set of sampleStream(smi, { intervalMs, signal: until, shapes, onProblem })) {
          // One that no longer answers, or answers again, is looked at in full at once.
          if (moved(set, last.samples) || (setSize !== undefined && set.length !== setSize)) refresh();
          setSize = set.length;
          yield withMigMemory(set, last.samples);
        }
      } finally {
        streamProblem = undefined;
        if (!signal.aborted) tell();
      }
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

const PAUSED = "sampling is paused, the driver can be unloaded: no work is placed on these GPUs until it is resumed";
const PAUSED_UNTIL_READ: SmiProblem = {
  code: "sampling_paused",
  message: "sampling is resumed; the GPUs are being read",
};

function nothingRead(message: string): Inventory {
  return { gpus: [], problems: [{ code: "timeout", message }], processes: new Map(), samples: [], rows: 0 };
}

/** When the next read is due, by the clock of `performance.now()`. */
function nextRead(readAt: number, isWanted: boolean, intervalMs: number): number {
  return readAt + (isWanted ? Math.min(REFRESH_LEAST_MS, intervalMs) : intervalMs);
}

/** A read that could not tell of all the GPUs says nothing of those it leaves out: they stay, and nobody is given them. */
function keeping(read: Inventory, before: readonly Gpu[]): Inventory {
  const { failed } = read;
  if (failed === undefined) return read;
  const uuids = new Set(read.gpus.map(({ uuid }) => uuid));
  const kept = before
    .filter(({ uuid }) => !uuids.has(uuid))
    .map(
      (gpu): Gpu => ({
        ...gpu,
        allocatable: false,
        health: { status: "failed", reasons: [{ code: failed.code, message: failed.message }] },
      }),
    );
  return { ...read, gpus: [...read.gpus, ...kept].sort((a, b) => a.index - b.index) };
}

function told(last: Inventory, streamProblem: SmiProblem | undefined, paused: SmiProblem | undefined): Inventory {
  const problems = [...last.problems];
  if (streamProblem !== undefined && !problems.some(({ code }) => code === streamProblem.code))
    problems.push(streamProblem);
  if (paused === undefined) return { ...last, problems };
  const gpus = last.gpus.map((gpu) => ({ ...gpu, allocatable: false }));
  return { ...last, gpus, samples: [], problems: [...problems, paused] };
}

function differs(a: Inventory, b: Inventory): boolean {
  return JSON.stringify([a.gpus, a.problems]) !== JSON.stringify([b.gpus, b.problems]);
}

/**
 * Tells whether a GPU's used memory has moved away from what the last full read said. A driver whose stream and document differ for
 * good makes one early read, not one after the other.
 */
function vramMoved(): (samples: readonly GpuTelemetry[], read: readonly GpuTelemetry[]) => boolean {
  const noticed = new Map<string, number>();
  return (samples, read) => {
    let hasMoved = false;
    for (const { uuid, vramUsedMiB: used } of samples) {
      const known = read.find((sample) => sample.uuid === uuid)?.vramUsedMiB;
      if (used === undefined || known === undefined) continue;
      const before = noticed.get(uuid);
      if (Math.abs(used - known) < VRAM_MOVED_MIB) noticed.delete(uuid);
      else if (before === undefined || Math.abs(used - before) >= VRAM_MOVED_MIB) {
        noticed.set(uuid, used);
        hasMoved = true;
      }
    }
    return hasMoved;
  };
}
