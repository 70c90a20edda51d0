import { uptime } from "node:os";

/**
 * Time that only ever passes: CLOCK_MONOTONIC, milliseconds since this machine's boot without the time it was asleep. The same for
 * all processes of a boot, and untouched by what is done to the wall clock.
 */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

/** How long this machine's boot has lasted, the time it was asleep included (CLOCK_BOOTTIME); milliseconds. No step of the wall clock moves it. */
export function uptimeMs(): number {
  return uptime() * 1000;
}

/** When this machine was started, by the wall clock of now; milliseconds since the epoch. */
export function bootTimeMs(now: () => number = Date.now): number {
  return now() - uptimeMs();
}

/** Where the clock's position is remembered over restarts of the agent. */
export interface ClockMemory {
  get(): string | undefined;
  set(value: string): void;
}

/**
 * A clock for deadlines: near the wall clock's milliseconds since the epoch, and no step of the wall clock (NTP, a person, a
 * suspended machine that wakes) moves it. Within one boot every agent has the same; after a reboot it begins at the wall clock again, so
 * that a deadline on disk means the same moment as closely as can be known.
 */
export function steadyClock(
  bootId: string,
  memory: ClockMemory,
  { now = Date.now, monotonic = monotonicMs }: { now?: () => number; monotonic?: () => number } = {},
): () => number {
  const [boot, saved] = memory.get()?.split(" ") ?? [];
  const known = boot === bootId && bootId !== "" ? Number(saved) : Number.NaN;
  const offset = Number.isFinite(known) ? known : Math.round(now() - monotonic());
  if (offset !== known) memory.set(`${bootId} ${offset}`);
  return () => offset + monotonic();
}
