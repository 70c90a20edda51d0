import { setTimeout as sleep } from "node:timers/promises";
import { GpunodeError } from "../protocol/errors.ts";
import { type WaitDoors, waitUntilDown } from "./wait.ts";

/**
 * Stopping a container: its signal, the grace, SIGKILL, and then the certainty that it is down.
 *
 * The engine's own "stop" request is not used: it holds one connection for the whole grace, which may be an hour, and an
 * engine that restarts meanwhile forgets it. Here the grace is counted by us and each step is asked for anew, so a
 * restart of the engine in the middle only delays it. A container has one stop at a time: a second call joins the
 * first, may bring the kill forward, and does not signal again (many programs take a second SIGTERM as "at once").
 */
export interface Stopper extends AsyncDisposable {
  stop(id: string, options: { signal: string | undefined; graceSeconds: number; onSignal?: () => void }): Promise<void>;
}

export interface StopDoors extends WaitDoors {
  /** A container that is gone or does not run is no error. */
  kill(id: string, signal: string, abortSignal: AbortSignal): Promise<void>;
}

/** An engine that was restarted is back within this; after it the caller is told. */
const ENGINE_PATIENCE_MS = 30_000;
const RETRY_MS = 250;
/** SIGKILL is sent so often, so far apart, before a process is called unkillable. */
const KILL_TRIES = 6;
const KILL_EVERY_MS = 5_000;

interface Stopping {
  /** By `performance.now()`. */
  killAt: number;
  killSooner: () => void;
  done: Promise<void>;
}

export function createStopper(doors: StopDoors, options: { enginePatienceMs?: number } = {}): Stopper {
  const patienceMs = options.enginePatienceMs ?? ENGINE_PATIENCE_MS;
  const stopping = new Map<string, Stopping>();
  const closing = new AbortController();

  async function run(
    id: string,
    { signal, onSignal }: { signal: string | undefined; onSignal?: (() => void) | undefined },
    stop: Stopping,
    sooner: () => Promise<void>,
  ): Promise<void> {
    if (stop.killAt > performance.now()) {
      if (signal !== undefined) {
        await patiently(() => doors.kill(id, signal, closing.signal));
        onSignal?.();
      }
      for (let left = stop.killAt - performance.now(); left > 0; left = stop.killAt - performance.now()) {
        if (await downWithin(id, left, sooner())) return;
      }
    }
    for (let tried = 0; tried < KILL_TRIES; tried++) {
      await patiently(() => doors.kill(id, "SIGKILL", closing.signal));
      if (await downWithin(id, KILL_EVERY_MS)) return;
    }
    throw new GpunodeError(
      "internal",
      `container ${id.slice(0, 12)} lives on ${(KILL_TRIES * KILL_EVERY_MS) / 1000} s after SIGKILL: a process of it hangs ` +
        "in the kernel (state D in ps), most often in the GPU driver. Look at dmesg; a GPU reset or a reboot ends it",
      { details: { reason: "unkillable" } },
    );
  }

  /** True where the container is down before the time is over or `interrupt` resolves. */
  async function downWithin(id: string, timeMs: number, interrupt?: Promise<void>): Promise<boolean> {
    const over = new AbortController();
    // setTimeout takes no more than a signed 32-bit number; the loop around comes back here.
    const timer = setTimeout(() => over.abort(), Math.min(timeMs, 2 ** 31 - 1));
    const stopNow = () => over.abort();
    closing.signal.addEventListener("abort", stopNow, { once: true });
    void interrupt?.then(stopNow);
    try {
      await patiently(() => waitUntilDown(id, doors, over.signal), over.signal);
      return true;
    } catch (error) {
      closing.signal.throwIfAborted();
      if (over.signal.aborted) return false;
      throw error;
    } finally {
      clearTimeout(timer);
      closing.signal.removeEventListener("abort", stopNow);
    }
  }

  /** Tries again while the engine is away, up to the limit. */
  async function patiently<T>(step: () => Promise<T>, signal: AbortSignal = closing.signal): Promise<T> {
    let awaySince: number | undefined;
    for (;;) {
      const began = performance.now();
      try {
        return await step();
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof GpunodeError && error.code === "engine_unavailable")) throw error;
        // A wait that held for long had an engine for long: the patience begins when that was lost.
        const now = performance.now();
        if (awaySince === undefined || now - began > patienceMs) awaySince = now;
        if (now - awaySince > patienceMs) throw error;
        await sleep(RETRY_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
      }
    }
  }

  return {
    async stop(id, { signal, graceSeconds, onSignal }) {
      const killAt = performance.now() + graceSeconds * 1000;
      const running = stopping.get(id);
      if (running !== undefined) {
        if (killAt < running.killAt) {
          running.killAt = killAt;
          running.killSooner();
        }
        return await running.done;
      }
      let sooner = Promise.withResolvers<void>();
      const stop: Stopping = { killAt, killSooner: () => sooner.resolve(), done: Promise.resolve() };
      const nextSooner = () => {
        sooner = Promise.withResolvers();
        return sooner.promise;
      };
      stop.done = run(id, { signal, onSignal }, stop, nextSooner).finally(() => stopping.delete(id));
      stopping.set(id, stop);
      await stop.done;
    },
    async [Symbol.asyncDispose]() {
      closing.abort(
        new GpunodeError("engine_unavailable", "the connection to the container engine was closed by this node"),
      );
      await Promise.allSettled([...stopping.values()].map(({ done }) => done));
    },
  };
}
