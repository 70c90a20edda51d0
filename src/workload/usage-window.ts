import type { UsageEvent } from "../protocol/event.ts";
import type { GpuTelemetry } from "../protocol/gpu.ts";

/** Between two samples farther apart than this nothing is known. Longer than the slowest stream (0.2 Hz) by half. */
const SAMPLE_GAP_MS = 7_500;

interface Seen {
  atMs: number;
  utilizationPercent: number | undefined;
  powerWatts: number | undefined;
}

/** What the samples tell of some GPUs between two usage records. */
export class UsageWindow {
  readonly #gpus: ReadonlySet<string>;
  /** The newest sample of each GPU or MIG instance. */
  readonly #last = new Map<string, Seen>();
  #observedMs = 0;
  #busyPercentMs = 0;
  #busyMs = 0;
  #joules = 0;
  #powerMs = 0;
  #vramPeakMiB: number | undefined;

  /** `gpus`: UUIDs of GPUs or MIG instances. */
  constructor(gpus: readonly string[]) {
    this.#gpus = new Set(gpus);
  }

  /** A set of samples at `atMs` of a clock that only passes. */
  sampled(samples: readonly GpuTelemetry[], atMs: number): void {
    let vramMiB: number | undefined;
    for (const sample of samples) {
      if (this.#gpus.has(sample.uuid)) {
        this.#observe(sample.uuid, {
          atMs,
          utilizationPercent: sample.utilizationPercent,
          powerWatts: sample.powerWatts,
        });
        vramMiB = plus(vramMiB, sample.vramUsedMiB);
      }
      for (const instance of sample.mig ?? []) {
        // Utilization and power of a board that is shared are nobody's alone.
        if (!this.#gpus.has(instance.uuid)) continue;
        this.#observe(instance.uuid, { atMs, utilizationPercent: undefined, powerWatts: undefined });
        vramMiB = plus(vramMiB, instance.vramUsedMiB);
      }
    }
    if (vramMiB !== undefined) this.#vramPeakMiB = Math.max(this.#vramPeakMiB ?? 0, Math.round(vramMiB));
  }

  /** What there is to tell of an interval of `lengthMs`. Only what was seen; absent where nothing was. */
  figures(lengthMs: number): Partial<UsageEvent> {
    if (this.#gpus.size === 0) return {};
    const observedSeconds = rounded(Math.min(lengthMs, this.#observedMs / this.#gpus.size) / 1000);
    return {
      ...(this.#busyMs > 0 && { gpuUtilizationMeanPercent: rounded(this.#busyPercentMs / this.#busyMs) }),
      ...(this.#vramPeakMiB !== undefined && { vramPeakMiB: this.#vramPeakMiB }),
      ...(this.#powerMs > 0 && { energyJoules: rounded(this.#joules) }),
      observedSeconds,
    };
  }

  /** A new interval begins; the newest samples reach into it. */
  clear(): void {
    this.#observedMs = 0;
    this.#busyPercentMs = 0;
    this.#busyMs = 0;
    this.#joules = 0;
    this.#powerMs = 0;
    this.#vramPeakMiB = undefined;
  }

  #observe(uuid: string, seen: Seen): void {
    const before = this.#last.get(uuid);
    this.#last.set(uuid, seen);
    if (before === undefined) return;
    const ms = seen.atMs - before.atMs;
    if (ms <= 0 || ms > SAMPLE_GAP_MS) return;
    this.#observedMs += ms;
    if (seen.utilizationPercent !== undefined && before.utilizationPercent !== undefined) {
      this.#busyPercentMs += (ms * (seen.utilizationPercent + before.utilizationPercent)) / 2;
      this.#busyMs += ms;
    }
    if (seen.powerWatts !== undefined && before.powerWatts !== undefined) {
      this.#joules += ((ms / 1000) * (seen.powerWatts + before.powerWatts)) / 2;
      this.#powerMs += ms;
    }
  }
}

function plus(a: number | undefined, b: number | undefined): number | undefined {
  return b === undefined ? a : (a ?? 0) + b;
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}
