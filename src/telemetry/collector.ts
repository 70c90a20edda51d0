import type { HostTelemetry, Telemetry, WorkloadTelemetry } from "../protocol/agent-frames.ts";
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
  /** Adds to GPU samples what is derived from them, before anybody sees them. */
  decorate?(samples: GpuTelemetry[]): GpuTelemetry[];
  /** VRAM of a workload's own processes, in MiB, where they are known. */
  vramOf?(workload: string): number | undefined;
}

export interface CollectorOptions {
  /** Called with each frame, whoever asked for it. */
  emit: (sample: Sample) => void;
  /** Milliseconds between two looks at the containers while nobody listens; 60 000 where absent. */
  healthIntervalMs?: number;
}

/** Containers are asked no more often than this: the engine's answer costs more than a GPU's. */
const CONTAINER_INTERVAL_MS = 2_000;
const HEALTH_INTERVAL_MS = 60_000;
/** A stream that ended by itself is asked for again after this. */
const STREAM_RETRY_MS = 1_000;

/**
 * Frames of telemetry, at the pace of who wants them. While somebody listens: one for each set of GPU samples, the moment it arrives,
 * joined with the host's figures and the newest ones of the containers; on a node without GPUs, or while nvidia-smi is away, a
 * timer drives it instead. While nobody does, there is no stream, and one frame for each full read of the GPUs.
 */
export class Collector implements AsyncDisposable {
  readonly #sources: TelemetrySources;
  readonly #emit: (sample: Sample) => void;
  readonly #healthIntervalMs: number;
  readonly #stop = new AbortController();
  readonly #wishes = new Set<{ intervalMs: number }>();
  readonly #listeners = new Set<(sample: Sample) => void>();
  /** Aborted when the pace changes. */
  #pace: { intervalMs: number | undefined; over: AbortController } = {
    intervalMs: undefined,
    over: new AbortController(),
  };
  #gpus: { at: number; samples: GpuTelemetry[]; isStream: boolean } | undefined;
  #containers = new Map<string, Omit<WorkloadTelemetry, "id">>();
  #latest: Sample | undefined;
  readonly #loops: Promise<unknown>;

  constructor(sources: TelemetrySources, { emit, healthIntervalMs = HEALTH_INTERVAL_MS }: CollectorOptions) {
    this.#sources = sources;
    this.#emit = emit;
    this.#healthIntervalMs = healthIntervalMs;
    this.#loops = Promise.all([this.#readGpus(), this.#keepBeat(), this.#readContainers()]);
  }

  /** The newest frame; undefined before the first. */
  get latest(): Sample | undefined {
    return this.#latest;
  }

  /** The interval in force: the smallest anybody asked for; undefined while nobody listens. */
  get intervalMs(): number | undefined {
    return this.#pace.intervalMs;
  }

  /** Wants frames every `intervalMs`, until it is disposed of. */
  listen(intervalMs: number): Disposable {
    const wish = { intervalMs };
    this.#wishes.add(wish);
    this.#settle();
    return {
      [Symbol.dispose]: () => {
        if (this.#wishes.delete(wish)) this.#settle();
      },
    };
  }

  /** Calls back with each frame, without asking for any. */
  onSample(listener: (sample: Sample) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** Takes what a full read of the GPUs said: a frame, unless a stream's samples are at hand, which are newer. */
  read(samples: readonly GpuTelemetry[]): void {
    if (this.#stop.signal.aborted || (this.#gpus?.isStream === true && this.#isFresh())) return;
    this.#take([...samples], { isStream: false });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#pace.over.abort();
    await this.#loops;
  }

  /** After the caller's turn: who leaves and who comes in one go do not cost a stream. */
  #settle(): void {
    queueMicrotask(() => {
      const wishes = [...this.#wishes].map(({ intervalMs }) => intervalMs);
      const intervalMs = wishes.length === 0 ? undefined : Math.min(...wishes);
      if (intervalMs === this.#pace.intervalMs || this.#stop.signal.aborted) return;
      const { over } = this.#pace;
      this.#pace = { intervalMs, over: new AbortController() };
      over.abort();
    });
  }

  /** Whether there are GPU samples no older than two intervals of who listens. */
  #isFresh(): boolean {
    const { intervalMs } = this.#pace;
    return intervalMs !== undefined && this.#gpus !== undefined && this.#sources.now() - this.#gpus.at < intervalMs * 2;
  }

  async #readGpus(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const { intervalMs, over } = this.#pace;
      if (intervalMs === undefined) {
        await pause(over.signal);
        continue;
      }
      const stream = this.#sources.gpus(intervalMs, over.signal)[Symbol.asyncIterator]();
      for (;;) {
        // The source reports its own problems; here one only means that this stream is over.
        const next = await stream.next().catch(() => undefined);
        if (next === undefined || next.done === true) break;
        if (!over.signal.aborted) this.#take(next.value, { isStream: true });
      }
      await pause(over.signal, STREAM_RETRY_MS);
    }
  }

  /** Frames go on without GPU samples, marked by their absence rather than by old values. */
  async #keepBeat(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const { intervalMs, over } = this.#pace;
      await pause(over.signal, intervalMs);
      if (over.signal.aborted || this.#isFresh()) continue;
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
      const { intervalMs = this.#healthIntervalMs, over } = this.#pace;
      await pause(over.signal, Math.max(CONTAINER_INTERVAL_MS, intervalMs));
    }
  }

  #take(told: GpuTelemetry[], { isStream }: { isStream: boolean }): void {
    const samples = this.#sources.decorate?.(told) ?? told;
    this.#gpus = { at: this.#sources.now(), samples, isStream };
    this.#frame();
  }

  #frame(): void {
    const gpus = this.#gpus?.samples ?? [];
    const workloads = this.#sources.running().map(({ id, gpus: uuids }) => {
      const vramUsedMiB = this.#sources.vramOf?.(id);
      return {
        id,
        ...this.#containers.get(id),
        ...gpuShare(gpus, uuids),
        ...(vramUsedMiB !== undefined && { vramUsedMiB }),
      };
    });
    const at = new Date(this.#sources.now()).toISOString();
    const sample: Sample = { at, gpus, host: this.#sources.host(), workloads };
    this.#latest = sample;
    this.#emit(sample);
    for (const listener of [...this.#listeners]) listener(sample);
  }
}

/** Resolves after `ms` (never by itself where absent), or with the signal; no timer is left. */
function pause(signal: AbortSignal, ms?: number): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = ms === undefined ? undefined : setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
    if (signal.aborted) done();
  });
}

/** What a workload uses of its own GPUs: the mean of their utilization, the sum of their VRAM; of MIG instances the VRAM alone. */
function gpuShare(
  gpus: readonly GpuTelemetry[],
  uuids: readonly string[],
): Pick<WorkloadTelemetry, "gpuUtilizationPercent" | "vramUsedMiB"> {
  const whole = gpus.filter(({ uuid }) => uuids.includes(uuid));
  const instances = gpus.flatMap(({ mig = [] }) => mig.filter(({ uuid }) => uuids.includes(uuid)));
  const busy = whole.flatMap(({ utilizationPercent }) => utilizationPercent ?? []);
  const vram = [...whole, ...instances].flatMap(({ vramUsedMiB }) => vramUsedMiB ?? []);
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  return {
    ...(busy.length > 0 && { gpuUtilizationPercent: sum(busy) / busy.length }),
    ...(vram.length > 0 && { vramUsedMiB: sum(vram) }),
  };
}
