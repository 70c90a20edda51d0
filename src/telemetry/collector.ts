import { setTimeout as sleep } from "node:timers/promises";
import type { HostTelemetry, Telemetry, WorkloadTelemetry } from "../protocol/frames.ts";
import type { GpuTelemetry } from "../protocol/gpu.ts";

/** A telemetry frame before the link adds how many samples it left out. */
export type Sample = Omit<Telemetry, "type" | "skipped">;

/** A running workload, as far as its telemetry goes. */
export interface RunningWorkload {
  id: string;
  containerId: string;
  gpus: readonly string[];
}

/** Where the figures come from. */
export interface TelemetrySources {
  /** Complete sets of GPU samples, one every `intervalMs`, for as long as it is read. Never throws but on abort. */
  gpus(intervalMs: number, signal: AbortSignal): AsyncIterable<GpuTelemetry[]>;
  host(): HostTelemetry;
  running(): readonly RunningWorkload[];
  /** What a container uses now; undefined where it does not run. May throw where the engine is away. */
  container(id: string): Promise<Omit<WorkloadTelemetry, "id" | "gpuUtilizationPercent" | "vramUsedMiB"> | undefined>;
  now(): number;
}

/** Containers are asked no more often than this: the engine's answer costs more than a GPU's. */
const CONTAINER_INTERVAL_MS = 2_000;

/**
 * The sampling loop: one frame for each set of GPU samples, the moment it arrives, joined with the host's figures and
 * the newest ones of the containers. On a node without GPUs, or while nvidia-smi is away, a timer drives it instead.
 */
export class Collector implements AsyncDisposable {
  readonly #sources: TelemetrySources;
  readonly #emit: (sample: Sample) => void;
  readonly #stop = new AbortController();
  #restart = new AbortController();
  #intervalMs: number;
  #gpus: { at: number; samples: GpuTelemetry[] } | undefined;
  #containers = new Map<string, Omit<WorkloadTelemetry, "id">>();
  #latest: Sample | undefined;
  readonly #loops: Promise<unknown>;

  constructor(sources: TelemetrySources, options: { intervalMs: number; emit: (sample: Sample) => void }) {
    this.#sources = sources;
    this.#intervalMs = options.intervalMs;
    this.#emit = options.emit;
    this.#loops = Promise.all([this.#readGpus(), this.#keepBeat(), this.#readContainers()]);
  }

  /** The newest frame; undefined before the first. */
  get latest(): Sample | undefined {
    return this.#latest;
  }

  /** Milliseconds between frames, from now on. */
  set intervalMs(intervalMs: number) {
    if (intervalMs === this.#intervalMs) return;
    this.#intervalMs = intervalMs;
    this.#restart.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#loops;
  }

  async #readGpus(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      this.#restart = new AbortController();
      const signal = AbortSignal.any([this.#stop.signal, this.#restart.signal]);
      try {
        for await (const samples of this.#sources.gpus(this.#intervalMs, signal)) {
          this.#gpus = { at: this.#sources.now(), samples };
          this.#frame();
        }
      } catch {
        // The source reports its own problems; here it only means that this stream is over.
      }
      if (!signal.aborted) await sleep(1000, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Frames go on without GPU samples, marked by their absence rather than by old values. */
  async #keepBeat(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await sleep(this.#intervalMs, undefined, { signal: this.#stop.signal }).catch(() => undefined);
      if (this.#stop.signal.aborted) return;
      const age = this.#sources.now() - (this.#gpus?.at ?? 0);
      if (age < this.#intervalMs * 2) continue;
      this.#gpus = undefined;
      this.#frame();
    }
  }

  async #readContainers(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const seen = new Map<string, Omit<WorkloadTelemetry, "id">>();
      for (const { id, containerId } of this.#sources.running()) {
        const usage = await this.#sources.container(containerId).catch(() => undefined);
        if (usage !== undefined) seen.set(id, usage);
        if (this.#stop.signal.aborted) return;
      }
      this.#containers = seen;
      const pause = Math.max(CONTAINER_INTERVAL_MS, this.#intervalMs);
      await sleep(pause, undefined, { signal: this.#stop.signal }).catch(() => undefined);
    }
  }

  #frame(): void {
    const gpus = this.#gpus?.samples ?? [];
    const workloads = this.#sources.running().map(({ id, gpus: uuids }) => ({
      id,
      ...this.#containers.get(id),
      ...gpuShare(gpus.filter(({ uuid }) => uuids.includes(uuid))),
    }));
    const at = new Date(this.#sources.now()).toISOString();
    this.#latest = { at, gpus, host: this.#sources.host(), workloads };
    this.#emit(this.#latest);
  }
}

/** What a workload uses of its own GPUs: the mean of their utilization, the sum of their VRAM. */
function gpuShare(gpus: readonly GpuTelemetry[]): Pick<WorkloadTelemetry, "gpuUtilizationPercent" | "vramUsedMiB"> {
  const busy = gpus.flatMap(({ utilizationPercent }) => utilizationPercent ?? []);
  const vram = gpus.flatMap(({ vramUsedMiB }) => vramUsedMiB ?? []);
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  return {
    ...(busy.length > 0 && { gpuUtilizationPercent: sum(busy) / busy.length }),
    ...(vram.length > 0 && { vramUsedMiB: sum(vram) }),
  };
}
