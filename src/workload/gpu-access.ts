import { setTimeout as sleep } from "node:timers/promises";
import type { Engine } from "./needs.ts";

/** A container with GPUs. */
export interface ContainerWithGpus {
  id: string;
  containerId: string;
  gpus: readonly string[];
}

export interface GpuAccessDoors {
  engine: Pick<Engine, "exec">;
  /** Those that run now and hold GPUs. */
  running(): readonly ContainerWithGpus[];
  /** True where the host itself sees the GPU or MIG instance. */
  hostSees(uuid: string): boolean;
  /** The container no longer sees these of its GPUs. */
  onLost(workload: ContainerWithGpus, gpus: readonly string[]): void;
  /** It sees them again, or is gone. */
  onBack(workload: ContainerWithGpus): void;
  /** Time between two probes of a container, milliseconds. */
  intervalMs?: number;
  /** A first failure is looked at again after this. */
  againMs?: number;
}

const INTERVAL_MS = 60_000;
const AGAIN_MS = 5_000;
/** A busy GPU answers slowly. */
const PROBE_MS = 10_000;
/** What a shell or the engine answers where there is no such program. */
const NO_PROGRAM = new Set([126, 127]);

type Sight = { seen: ReadonlySet<string> } | { blind: true } | undefined;

/**
 * Looks from inside whether running containers still see their GPUs, as long as they have an nvidia-smi (the NVIDIA toolkit brings
 * it along). `systemctl daemon-reload` takes devices away from containers that systemd's cgroups hold; from outside all looks well.
 */
export class GpuAccessWatch implements AsyncDisposable {
  readonly #doors: GpuAccessDoors;
  readonly #stop = new AbortController();
  /** Containers that cannot be asked. */
  readonly #unasked = new Set<string>();
  readonly #lost = new Map<string, ContainerWithGpus>();
  readonly #loop: Promise<void>;

  constructor(doors: GpuAccessDoors) {
    this.#doors = doors;
    this.#loop = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const { intervalMs = INTERVAL_MS, running } = this.#doors;
    while (!signal.aborted) {
      await sleep(intervalMs, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted) return;
      const here = running();
      this.#forget(here);
      for (const workload of here) {
        if (signal.aborted) return;
        if (workload.gpus.length > 0 && !this.#unasked.has(workload.containerId)) await this.#look(workload);
      }
    }
  }

  /** What is gone needs no look, and is no longer blind. */
  #forget(here: readonly ContainerWithGpus[]): void {
    const ids = new Set(here.map(({ containerId }) => containerId));
    for (const id of this.#unasked) if (!ids.has(id)) this.#unasked.delete(id);
    for (const [id, workload] of this.#lost) {
      if (ids.has(id)) continue;
      this.#lost.delete(id);
      this.#doors.onBack(workload);
    }
  }

  async #look(workload: ContainerWithGpus): Promise<void> {
    const { signal } = this.#stop;
    const { againMs = AGAIN_MS, onLost, onBack } = this.#doors;
    let missing = await this.#missing(workload);
    // Once may be a driver that is being reloaded; twice is not.
    if (missing.length > 0 && !this.#lost.has(workload.containerId)) {
      await sleep(againMs, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted) return;
      missing = await this.#missing(workload);
    }
    if (missing.length > 0 && !this.#lost.has(workload.containerId)) {
      this.#lost.set(workload.containerId, workload);
      onLost(workload, missing);
    } else if (missing.length === 0 && this.#lost.delete(workload.containerId)) onBack(workload);
  }

  /** Those of its GPUs that the host sees and the container does not; [] also where that cannot be told. */
  async #missing(workload: ContainerWithGpus): Promise<string[]> {
    const sight = await this.#sight(workload).catch(() => undefined);
    if (sight === undefined) return [];
    return workload.gpus.filter((uuid) => this.#doors.hostSees(uuid) && ("blind" in sight || !sight.seen.has(uuid)));
  }

  async #sight({ containerId }: ContainerWithGpus): Promise<Sight> {
    const { exitCode, output } = await this.#doors.engine
      .exec(containerId, ["nvidia-smi", "-L"], { timeoutMs: PROBE_MS, signal: this.#stop.signal })
      .catch((error: unknown) => {
        // The engine's own words for a program that is not there.
        if (/not found|no such file/i.test(String(error))) return { exitCode: 127, output: "" };
        throw error;
      });
    if (exitCode !== undefined && NO_PROGRAM.has(exitCode)) {
      this.#unasked.add(containerId);
      return undefined;
    }
    const seen = new Set(output.match(/\b(?:GPU|MIG)-[0-9a-f-]{8,}[^)\s]*/gi) ?? []);
    if (seen.size > 0) return { seen };
    return /Failed to initialize NVML|No devices were found/i.test(output) ? { blind: true } : undefined;
  }
}
