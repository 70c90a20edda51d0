import type { GpuProcess, GpuTelemetry } from "../protocol/gpu.ts";

/** So much of a GPU's memory changes hands before the list of its processes is out of date; the watch then reads anew. */
const VRAM_MOVED_MIB = 64;

/** A process as the driver tells it. */
export interface ProcessOnGpu {
  pid: number;
  name: string;
  vramUsedMiB?: number;
}

/** Whom a process belongs to, as the machine tells. */
export type Owner = { container: string } | { unit: string };

/** A workload that may have processes on GPUs. */
export interface ContainedWorkload {
  id: string;
  /** Full id of its container. */
  containerId: string;
}

/** A process on a GPU that is no workload's. */
export interface ForeignProcess {
  gpu: string;
  pid: number;
  name: string;
  owner: Owner | undefined;
  vramUsedMiB?: number;
}

export interface AttributionDoors {
  /** undefined where the process is gone or belongs to nobody that can be named. */
  ownerOf(pid: number): Owner | undefined;
  /** What tells a process from a later one with the same id; undefined where there is none. */
  startOf(pid: number): string | undefined;
}

interface Known {
  start: string;
  owner: Owner | undefined;
}

interface Found extends ProcessOnGpu {
  workload: string | undefined;
  owner: Owner | undefined;
}

/**
 * Whose VRAM it is: each process on a GPU belongs to the workload in whose container it runs, by its cgroup; every other one is the
 * owner's. What is in use by no process at all stays unattributed.
 */
export class Attribution {
  readonly #doors: AttributionDoors;
  /** By process id; asked again where the id has come to mean another process. */
  #owners = new Map<number, Known>();
  #found: ReadonlyMap<string, readonly Found[]> = new Map();
  /** What was in use of each GPU when its processes were listed. */
  #usedMiB: ReadonlyMap<string, number | undefined> = new Map();

  constructor(doors: AttributionDoors) {
    this.#doors = doors;
  }

  /**
   * The processes of a new full read, by GPU, with the samples of the same read; what was known before is replaced. A process that is
   * gone meanwhile is left out.
   */
  attribute(
    processes: ReadonlyMap<string, readonly ProcessOnGpu[]>,
    workloads: readonly ContainedWorkload[],
    samples: readonly GpuTelemetry[] = [],
  ): void {
    this.#usedMiB = new Map(samples.map(({ uuid, vramUsedMiB }) => [uuid, vramUsedMiB]));
    const byContainer = new Map(workloads.map(({ id, containerId }) => [containerId, id]));
    const owners = new Map<number, Known>();
    const found = new Map<string, Found[]>();
    for (const [gpu, list] of processes) {
      found.set(
        gpu,
        list.flatMap((process) => {
          const known = owners.get(process.pid) ?? this.#lookUp(process.pid);
          if (known === undefined) return [];
          owners.set(process.pid, known);
          const { owner } = known;
          const workload = owner !== undefined && "container" in owner ? byContainer.get(owner.container) : undefined;
          return [{ ...process, workload, owner }];
        }),
      );
    }
    this.#owners = owners;
    this.#found = found;
  }

  /**
   * The samples with the processes on each GPU, and with what no process explains. Memory that has changed hands since the processes were
   * listed is nobody's yet: then neither is told, until the next full read.
   */
  apply(samples: readonly GpuTelemetry[]): GpuTelemetry[] {
    return samples.map((sample) => {
      const found = this.#found.get(sample.uuid);
      if (found === undefined || this.#hasMoved(sample)) return sample;
      const processes = found.map(
        ({ pid, workload, vramUsedMiB }): GpuProcess => ({
          pid,
          ...(workload !== undefined && { workload }),
          ...(vramUsedMiB !== undefined && { vramUsedMiB }),
        }),
      );
      // One process whose use is not told makes the rest unknown.
      const explained = sumOf(found);
      const { vramUsedMiB } = sample;
      const rest = explained === undefined || vramUsedMiB === undefined ? undefined : vramUsedMiB - explained;
      return {
        ...sample,
        processes,
        ...(rest !== undefined && { vramUnattributedMiB: Math.max(0, Math.round(rest)) }),
      };
    });
  }

  /** VRAM of a workload's processes over all GPUs; undefined where it has none, or where the driver does not tell of each. */
  vramOf(workload: string): number | undefined {
    const own = [...this.#found.values()].flat().filter((process) => process.workload === workload);
    return own.length === 0 ? undefined : sumOf(own);
  }

  /** Processes that are no workload's. */
  foreign(): ForeignProcess[] {
    return [...this.#found].flatMap(([gpu, list]) =>
      list.flatMap(({ pid, name, owner, workload, vramUsedMiB }) =>
        workload === undefined ? [{ gpu, pid, name, owner, ...(vramUsedMiB !== undefined && { vramUsedMiB }) }] : [],
      ),
    );
  }

  #hasMoved({ uuid, vramUsedMiB }: GpuTelemetry): boolean {
    const before = this.#usedMiB.get(uuid);
    return before !== undefined && vramUsedMiB !== undefined && Math.abs(vramUsedMiB - before) >= VRAM_MOVED_MIB;
  }

  #lookUp(pid: number): Known | undefined {
    const start = this.#doors.startOf(pid);
    if (start === undefined) return undefined;
    const known = this.#owners.get(pid);
    if (known?.start === start) return known;
    const owner = this.#doors.ownerOf(pid);
    // Ended and given again between the two looks: then the cgroup may be the wrong process's.
    return this.#doors.startOf(pid) === start ? { start, owner } : undefined;
  }
}

function sumOf(processes: readonly { vramUsedMiB?: number }[]): number | undefined {
  let sum = 0;
  for (const { vramUsedMiB } of processes) {
    if (vramUsedMiB === undefined) return undefined;
    sum += vramUsedMiB;
  }
  return sum;
}
