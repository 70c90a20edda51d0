import { describe, expect, it } from "vitest";
import { readTopology } from "../../src/gpu/nvidia/topology.ts";
import { choose } from "../../src/placement/choose.ts";
import { compareVersions, misfit, type Unit, unitsOf } from "../../src/placement/unit.ts";
import type { Gpu } from "../../src/protocol/gpu.ts";
import { GpuRequest } from "../../src/protocol/workload.ts";
import { fixture, haveFixtures } from "../support/fixtures.ts";

/** A machine from a matrix as `nvidia-smi topo -m` prints it. */
function machine(topology: string, changes: Record<number, Partial<Gpu>> = {}): Gpu[] {
  return [...readTopology(topology)].map(([index, links]) => ({
    index,
    uuid: `GPU-${index}`,
    vendor: "nvidia",
    name: "NVIDIA Test",
    vramMiB: 24_576,
    links: links.map(({ index: other, ...link }) => ({ gpu: `GPU-${other}`, ...link })),
    health: { status: "healthy", reasons: [] },
    allocatable: true,
    ...changes[index],
  }));
}

/** Indexes of what is chosen of the GPUs that are not held. */
function chosen(gpus: readonly Gpu[], count: number, options: { held?: number[]; nvlink?: boolean } = {}) {
  const { held = [], nvlink = false } = options;
  const free = unitsOf(gpus, {}).filter(({ gpu }) => !held.includes(gpu.index));
  return choose(free, { count, nvlink })?.map(({ gpu }) => gpu.index);
}

/** Rows and columns of GPUs; "X" on the diagonal. */
function matrix(size: number, cell: (a: number, b: number) => string): string {
  const names = Array.from({ length: size }, (_, index) => `GPU${index}`);
  const rows = names.map((name, a) => [name, ...names.map((_, b) => (a === b ? " X " : cell(a, b)))].join("\t"));
  return `\t${names.join("\t")}\n${rows.join("\n")}\n`;
}

const pairs = matrix(4, (a, b) => (a + b === 3 ? "NV4" : "SYS"));

describe("of several GPUs", () => {
  it("takes those that are linked over NVLink, whatever their numbers", () => {
    expect(chosen(machine(pairs), 2)).toEqual([0, 3]);
    expect(chosen(machine(pairs), 2, { held: [0] })).toEqual([1, 2]);
    expect(chosen(machine(pairs), 3)).toEqual([0, 1, 2]);
  });

  it("takes unlinked ones where nothing better is free, unless links are asked for", () => {
    expect(chosen(machine(pairs), 2, { held: [0, 1] })).toEqual([2, 3]);
    expect(chosen(machine(pairs), 2, { held: [0, 1], nvlink: true })).toBeUndefined();
    expect(chosen(machine(pairs), 3, { nvlink: true })).toBeUndefined();
  });

  it("takes those of one product before smaller ones of two", () => {
    const mixed = machine(
      matrix(4, () => "SYS"),
      { 0: { name: "A", vramMiB: 8192 }, 1: { name: "B", vramMiB: 16_384 }, 2: { name: "B", vramMiB: 16_384 } },
    );
    expect(chosen(mixed, 2)).toEqual([1, 2]);
  });

  it("takes the nearest over PCIe where there is no NVLink", () => {
    const switches = matrix(4, (a, b) => (a % 2 === b % 2 ? "PIX" : "SYS"));
    expect(chosen(machine(switches), 2)).toEqual([0, 2]);
    expect(chosen(machine(switches), 2, { held: [2] })).toEqual([1, 3]);
    const sockets = matrix(4, (a, b) => (a < 2 === b < 2 ? "PHB" : "SYS"));
    expect(chosen(machine(sockets), 2, { held: [0] })).toEqual([2, 3]);
  });

  it("takes the lower numbers on a machine where every pair is alike", () => {
    const mesh = machine(matrix(8, () => "NV18"));
    expect(chosen(mesh, 4)).toEqual([0, 1, 2, 3]);
    expect(chosen(mesh, 8, { nvlink: true })).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(chosen(machine(matrix(2, () => "SYS")), 3)).toBeUndefined();
  });

  it("answers the same whatever the order they are listed in", () => {
    const gpus = machine(pairs);
    expect(chosen([...gpus].reverse(), 2)).toEqual(chosen(gpus, 2));
  });

  it("never does worse than any other set, on machines made at random", () => {
    let seed = 7;
    const random = () => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      return seed / 2 ** 31;
    };
    for (let round = 0; round < 50; round++) {
      const links = new Map<string, boolean>();
      const linked = (a: number, b: number) => {
        const key = `${Math.min(a, b)}-${Math.max(a, b)}`;
        if (!links.has(key)) links.set(key, random() < 0.4);
        return links.get(key) === true;
      };
      const gpus = machine(matrix(6, (a, b) => (linked(a, b) ? "NV2" : "SYS")));
      const count = 2 + Math.floor(random() * 4);
      const pairsOf = (set: readonly number[]) =>
        set.flatMap((a, i) => set.slice(i + 1).filter((b) => linked(a, b))).length;
      let most = 0;
      for (let mask = 0; mask < 64; mask++) {
        const set = [0, 1, 2, 3, 4, 5].filter((index) => (mask >> index) & 1);
        if (set.length === count) most = Math.max(most, pairsOf(set));
      }
      expect(pairsOf(chosen(gpus, count) ?? [])).toBe(most);
      const whole = (count * (count - 1)) / 2;
      expect(chosen(gpus, count, { nvlink: true }) === undefined).toBe(most < whole);
    }
  });

  it("chooses among very many MIG instances in no time and gives each once", () => {
    const gpu = machine(matrix(2, () => "SYS"))[0] as Gpu;
    const units: Unit[] = Array.from({ length: 112 }, (_, i) => ({
      uuid: `MIG-${String(i).padStart(3, "0")}`,
      gpu,
      vramMiB: 4864,
      profile: "1g.5gb",
    }));
    const given = choose(units, { count: 50, nvlink: false })?.map(({ uuid }) => uuid);
    expect(new Set(given).size).toBe(50);
  });
});

describe("of one GPU", () => {
  it("takes the smallest, and of equals the one that breaks no pair", () => {
    expect(chosen(machine(pairs, { 2: { vramMiB: 8192 } }), 1)).toEqual([2]);
    expect(chosen(machine(pairs), 1)).toEqual([0]);
    // 0 is taken, so its partner 3 has nobody to stay with.
    expect(chosen(machine(pairs), 1, { held: [0] })).toEqual([3]);
  });
});

describe.runIf(haveFixtures)("on a recorded machine", () => {
  it("of eight fully linked GPUs any set is as good, and all are within reach", () => {
    const gpus = machine(fixture("real-binary-mock-nvml/topo-m.stdout"));
    expect(gpus.length).toBeGreaterThan(1);
    expect(chosen(gpus, gpus.length)).toEqual(gpus.map(({ index }) => index));
  });
});

describe("compute capability", () => {
  it.each([
    ["9.0", "10.0", -1],
    ["10.0", "9.0", 1],
    ["12.1", "12.0", 1],
    ["8.6", "8.6", 0],
    ["12", "12.0", 0],
    ["535.104.05", "535.86.10", 1],
  ] as const)("%s against %s", (a, b, sign) => {
    expect(compareVersions(a, b)).toBe(sign);
  });

  it("that nobody knows serves nobody who asks for one", () => {
    const [unit] = unitsOf(machine(pairs), {});
    const request = GpuRequest.parse({ count: 1, minComputeCapability: "7.0" });
    expect(misfit(unit as Unit, request)).toBe("GPU 0 (NVIDIA Test) has an unknown compute capability, 7.0 asked for");
  });
});
