import type { Logger } from "pino";
import type { Config } from "../config/config.ts";
import type { DockerEngine } from "../engine/docker.ts";
import type { GpuWatch } from "../gpu/watch.ts";
import { ownerOfProcess, startTicks } from "../host/cgroup.ts";
import { createHostSampler, diskFreeMiB, diskTotalMiB } from "../host/sampler.ts";
import { BUG } from "../protocol/errors.ts";
import type { PressureEvent } from "../protocol/event.ts";
import type { Gpu, GpuTelemetry } from "../protocol/gpu.ts";
import type { Store } from "../store/store.ts";
import { Attribution, type ForeignProcess } from "../telemetry/attribution.ts";
import { Collector, type Sample } from "../telemetry/collector.ts";
import { PressureWatch } from "../telemetry/pressure.ts";
import { Scrapes } from "../telemetry/scrapes.ts";
import type { Meter } from "../workload/meter.ts";
import type { WorkloadRecord } from "../workload/record.ts";

export interface NodeTelemetryDoors {
  config: Config;
  engine: DockerEngine;
  store: Store;
  gpus: Pick<GpuWatch, "samples" | "inventory" | "refresh" | "paused">;
  meter: Meter;
  records(): readonly WorkloadRecord[];
  steady(): number;
  log: Logger;
  /** A frame for the coordinator. */
  emit(sample: Sample): void;
  /** A level of pressure has changed, and is on record. */
  pressure(event: PressureEvent): void;
  /** The processes of a full read that are no workload's; undefined where it failed. */
  foreign(processes: readonly ForeignProcess[] | undefined): void;
  /** A set of samples of the GPUs, from a stream or a full read. */
  sampled(samples: readonly GpuTelemetry[]): void;
}

/** The owner looks at the node: for so long after a look the GPUs are sampled. */
const LOOK_MS = 5_000;
/** An owner who looks does not wait longer than this for figures of now. */
const FIRST_SAMPLE_MS = 1_000;

/**
 * What the node tells of itself as it runs: frames, levels of pressure, whose VRAM it is, and what the meter counts. Samples are taken only
 * while somebody listens: a coordinator, a workload on a GPU, the owner's eyes.
 */
export class NodeTelemetry implements AsyncDisposable {
  readonly collector: Collector;
  readonly pressure: PressureWatch;
  readonly attribution = new Attribution({ ownerOf: ownerOfProcess, startOf: startTicks });
  readonly #doors: NodeTelemetryDoors;
  #session: Disposable | undefined;
  #metering: Disposable | undefined;
  #look: Disposable | undefined;
  #lookEnds: NodeJS.Timeout | undefined;
  readonly #scrapes: Scrapes;
  /** When the newest frame came, by the steady clock. */
  #sampledAt: number | undefined;

  constructor(doors: NodeTelemetryDoors) {
    this.#doors = doors;
    const { config, engine, store, gpus, meter, steady } = doors;
    const hostSampler = createHostSampler({ diskPath: () => this.#diskPath() });
    this.pressure = new PressureWatch({
      thresholds: config.pressure,
      steady,
      emit: (event) => {
        store.append([event]);
        doors.pressure(event);
      },
    });
    this.collector = new Collector(
      {
        gpus: (intervalMs, until) => gpus.samples({ intervalMs, signal: until }),
        decorate: (samples) => this.#decorate(samples),
        host: () => hostSampler.sample(),
        running: () => doors.records().flatMap(runningOf),
        container: async (id) => {
          const usage = await engine.usage(id);
          if (usage === undefined) return undefined;
          meter.counted(id, usage);
          const { cpuSeconds: _counted, ...figures } = usage;
          return figures;
        },
        vramOf: (workload) => this.attribution.vramOf(workload),
        now: Date.now,
      },
      { emit: doors.emit },
    );
    this.#scrapes = new Scrapes({
      intervalMs: config.telemetry.intervalMs,
      listen: (intervalMs) => this.collector.listen(intervalMs),
      newestAgeMs: () => (this.#sampledAt === undefined ? undefined : steady() - this.#sampledAt),
      read: async () => {
        gpus.refresh();
        await this.#nextSample();
      },
      now: steady,
    });
    this.collector.onSample((sample) => {
      this.#sampledAt = steady();
      try {
        this.pressure.host(sample.host, { unified: gpus.inventory.gpus.some(isUnified) });
        doors.sampled(sample.gpus);
        meter.sampled(sample.gpus);
      } catch (error) {
        // The next sample comes all the same.
        doors.log.error({ err: error }, `a sample could not be used: ${BUG}`);
      }
    });
  }

  /** A full read of the GPUs is over. */
  read(): void {
    const { processes, samples, failed } = this.#doors.gpus.inventory;
    this.attribution.attribute(processes, this.#doors.records().flatMap(runningOf), samples);
    this.#doors.foreign(failed === undefined ? this.attribution.foreign() : undefined);
    this.collector.read(samples);
    const path = this.#diskPath();
    const [free, total] = [diskFreeMiB(path), diskTotalMiB(path)];
    if (free !== undefined && total !== undefined) this.pressure.disk(free, total);
  }

  /** A coordinator listens at this interval, or no longer. */
  setSession(intervalMs: number | undefined): void {
    this.#session?.[Symbol.dispose]();
    // The provider's interval is the fastest there is; a coordinator may ask for a slower one.
    this.#session =
      intervalMs === undefined
        ? undefined
        : this.collector.listen(Math.max(this.#doors.config.telemetry.intervalMs, intervalMs));
  }

  /** A workload began or ended: the meter listens while one is on a GPU. */
  workloadsChanged(): void {
    const { isMetering } = this.#doors.meter;
    if (isMetering === (this.#metering !== undefined)) return;
    this.#metering?.[Symbol.dispose]();
    this.#metering = isMetering ? this.collector.listen(this.#doors.config.telemetry.intervalMs) : undefined;
  }

  /** The owner looks: samples are taken for the next seconds. Resolves with the first, or after a second without one. */
  async look(): Promise<void> {
    const wasSampling = this.collector.intervalMs !== undefined;
    this.#look ??= this.collector.listen(this.#doors.config.telemetry.intervalMs);
    clearTimeout(this.#lookEnds);
    this.#lookEnds = setTimeout(() => {
      this.#look?.[Symbol.dispose]();
      this.#look = undefined;
    }, LOOK_MS);
    this.#lookEnds.unref();
    if (!wasSampling && this.#doors.gpus.inventory.gpus.length > 0) await this.#nextSample();
  }

  /** Prometheus looks. Resolves when the figures are as fresh as they will be; at once while sampling is paused. */
  async scraped(): Promise<void> {
    if (!this.#doors.gpus.paused) await this.#scrapes.scraped();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#lookEnds);
    this.#scrapes[Symbol.dispose]();
    await this.collector[Symbol.asyncDispose]();
  }

  /** Where images and layers lie; the state folder's disk where the engine has not said, or is elsewhere. */
  #diskPath(): string {
    const path = this.#doors.engine.dataRoot();
    return path !== undefined && diskFreeMiB(path) !== undefined ? path : this.#doors.config.stateDir;
  }

  /** Disk space left where images and layers lie. */
  diskFreeMiB(): number | undefined {
    return diskFreeMiB(this.#diskPath());
  }

  async #nextSample(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, FIRST_SAMPLE_MS);
    using _hearing = this.collector.onSample(() => resolve());
    await promise;
    clearTimeout(timer);
  }

  #decorate(samples: readonly GpuTelemetry[]): GpuTelemetry[] {
    const unified = new Set(this.#doors.gpus.inventory.gpus.filter(isUnified).map(({ uuid }) => uuid));
    return this.attribution.apply(samples).map((sample) => {
      const pressure = this.pressure.gpu(sample, { unified: unified.has(sample.uuid) });
      return pressure === undefined ? sample : { ...sample, pressure };
    });
  }
}

function isUnified({ unified }: Gpu): boolean {
  return unified === true;
}

function runningOf({ id, containerId, gpus, state }: WorkloadRecord) {
  const isUp = state === "running" || state === "stopping";
  return isUp && containerId !== undefined ? [{ id, containerId, gpus }] : [];
}
