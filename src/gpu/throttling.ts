import type { GpuTelemetry } from "../protocol/gpu.ts";

/** So far back counts. */
const WINDOW_MS = 120_000;
/** Slowed down for this share of the window is a fault; for less than the other it is over. */
const FROM = 0.5;
const UNTIL = 0.05;
/** Fewer samples than this tell nothing of a share. */
const SAMPLES_LEAST = 3;

/** Throttle reasons (`sample-row.ts`) that are faults. `sw_power_cap` and clock settings are the owner's wish, never a fault. */
const THERMAL = new Set(["sw_thermal_slowdown", "hw_thermal_slowdown"]);
const POWER_BRAKE = new Set(["hw_power_brake_slowdown"]);

interface Seen {
  atMs: number;
  thermal: boolean;
  brake: boolean;
}

/** Whether one GPU has been slowed down for long, by heat or by the power supply. */
export class Throttling {
  #seen: Seen[] = [];
  thermal = false;
  brake = false;

  sampled({ throttleReasons }: GpuTelemetry, atMs: number): void {
    if (throttleReasons === undefined) return;
    const has = (reasons: ReadonlySet<string>) => throttleReasons.some((reason) => reasons.has(reason));
    this.#seen.push({ atMs, thermal: has(THERMAL), brake: has(POWER_BRAKE) });
    while ((this.#seen[0]?.atMs ?? atMs) < atMs - WINDOW_MS) this.#seen.shift();
    // A window that is not full yet, after a start or a pause, is no judge.
    if (this.#seen.length < SAMPLES_LEAST || atMs - (this.#seen[0]?.atMs ?? atMs) < WINDOW_MS * 0.75) return;
    this.thermal = this.#judge(this.thermal, ({ thermal }) => thermal);
    this.brake = this.#judge(this.brake, ({ brake }) => brake);
  }

  #judge(now: boolean, isSlowed: (seen: Seen) => boolean): boolean {
    const share = this.#seen.filter(isSlowed).length / this.#seen.length;
    return now ? share >= UNTIL : share >= FROM;
  }
}
