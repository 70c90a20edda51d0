import type { Gpu } from "../protocol/gpu.ts";

/** Idle GPUs let their link slow down on purpose: it is judged from this utilization on. */
const LOAD_PERCENT = 30;
/** So many loaded reads in a row must be worse before it counts: the link may be changing gear. */
const READS = 2;

export interface LinkMemory {
  get(key: string): string | undefined;
  set(key: string, value: string): void;
}

/** Whether a GPU's PCIe link is worse under load than it has been on this machine; what the board could do elsewhere does not matter. */
export class PcieBaseline {
  readonly #memory: LinkMemory;
  readonly #worse = new Map<string, number>();

  constructor(memory: LinkMemory) {
    this.#memory = memory;
  }

  /** A full read, with the utilization it told. */
  read({ uuid, pci }: Pick<Gpu, "uuid" | "pci">, utilizationPercent: number | undefined): void {
    const { linkGeneration: generation, linkWidth: width } = pci ?? {};
    if (generation === undefined || width === undefined || (utilizationPercent ?? 0) < LOAD_PERCENT) return;
    const best = this.#best(uuid);
    if (best === undefined || generation > best.generation || width > best.width) {
      const next = {
        generation: Math.max(generation, best?.generation ?? 0),
        width: Math.max(width, best?.width ?? 0),
      };
      this.#memory.set(`pcie:${uuid}`, `${next.generation} ${next.width}`);
    }
    if (best === undefined || (generation >= best.generation && width >= best.width)) {
      this.#worse.delete(uuid);
      this.#setProblem(uuid, "");
      return;
    }
    const reads = (this.#worse.get(uuid) ?? 0) + 1;
    this.#worse.set(uuid, reads);
    if (reads < READS) return;
    this.#setProblem(
      uuid,
      `under load its PCIe link runs at generation ${generation} ×${width}, it has run at generation ${best.generation} ×${best.width}: look at the slot and the riser`,
    );
  }

  /** What is wrong; undefined where nothing is known to be. */
  problem(uuid: string): string | undefined {
    return this.#memory.get(`pcie_problem:${uuid}`) || undefined;
  }

  /** Kept over restarts: what was seen under load is not over because an agent is new. */
  #setProblem(uuid: string, problem: string): void {
    if ((this.problem(uuid) ?? "") !== problem) this.#memory.set(`pcie_problem:${uuid}`, problem);
  }

  #best(uuid: string): { generation: number; width: number } | undefined {
    const [generation, width] = (this.#memory.get(`pcie:${uuid}`) ?? "").split(" ").map(Number);
    return generation && width ? { generation, width } : undefined;
  }
}
