import { describe, expect, it } from "vitest";
import { chooseVictims, type Holder } from "../../src/placement/victims.ts";
import type { Gpu, GpuLink } from "../../src/protocol/gpu.ts";
import { GpuRequest } from "../../src/protocol/workload.ts";

function gpu(index: number, changes: Partial<Gpu> = {}): Gpu {
  return {
    index,
    uuid: `GPU-${index}`,
    vendor: "nvidia",
    name: "NVIDIA Test",
    vramMiB: 24_576,
    links: [],
    health: { status: "healthy", reasons: [] },
    allocatable: true,
    ...changes,
  };
}

const plain = (count: number) => Array.from({ length: count }, (_, index) => gpu(index));
/** GPUs of which those with the same letter reach each other over NVLink. */
const linked = (letters: string) =>
  [...letters].map((letter, index) =>
    gpu(index, {
      links: [...letters].flatMap((other, n): GpuLink[] =>
        other === letter && n !== index ? [{ gpu: `GPU-${n}`, kind: "nvlink" }] : [],
      ),
    }),
  );
const sliced = (index: number, profiles: readonly string[]) =>
  gpu(index, {
    mig: {
      enabled: true,
      instances: profiles.map((profile, n) => ({
        uuid: `MIG-${index}-${n}`,
        profile,
        vramMiB: 9728,
        gpuInstanceId: n,
        computeInstanceId: 0,
      })),
    },
  });

/** `"0,1"` are GPUs 0 and 1. */
function holder(id: string, gpus: string, changes: Partial<Holder> = {}): Holder {
  const uuids = gpus.split(",").map((name) => (name.startsWith("MIG") ? name : `GPU-${name}`));
  return { id, gpus: uuids, priority: 100, preemptible: true, acceptedAt: 0, ...changes };
}

function victims(
  request: object,
  gpus: readonly Gpu[],
  holders: readonly Holder[],
  more: { priority?: number; suffices?: (victims: readonly Holder[]) => boolean } = {},
): string[] | undefined {
  const { priority = 500, suffices = () => true } = more;
  const chosen = chooseVictims(GpuRequest.parse({ count: 1, ...request }), { gpus, holders, priority, suffices });
  return chosen?.map(({ id }) => id).sort();
}

describe("whose GPUs are taken", () => {
  it.each<[string, object, readonly Gpu[], readonly Holder[], string[]]>([
    ["the only one's", {}, plain(1), [holder("a", "0")], ["a"]],
    ["the fewest's", { count: 2 }, plain(4), [holder("a", "0"), holder("b", "1"), holder("c", "2,3")], ["c"]],
    [
      "the fewest's, also where their priority is higher",
      { count: 2 },
      plain(4),
      [holder("a", "0", { priority: 1 }), holder("b", "1", { priority: 1 }), holder("c", "2,3", { priority: 400 })],
      ["c"],
    ],
    ["no more than what is free leaves to be wished", { count: 2 }, plain(2), [holder("a", "1")], ["a"]],
    [
      "those of the lowest priority",
      {},
      plain(3),
      [holder("a", "0", { priority: 30 }), holder("b", "1", { priority: 10 }), holder("c", "2", { priority: 20 })],
      ["b"],
    ],
    [
      "those among whom the highest priority is the lowest, not those of the smallest sum",
      { count: 2, nvlink: true },
      linked("aabb"),
      [
        holder("a1", "0", { priority: 1 }),
        holder("a2", "1", { priority: 300 }),
        holder("b1", "2", { priority: 200 }),
        holder("b2", "3", { priority: 250 }),
      ],
      ["b1", "b2"],
    ],
    [
      "of the same priority the youngest",
      {},
      plain(3),
      [
        holder("old", "0", { acceptedAt: 1 }),
        holder("young", "1", { acceptedAt: 3 }),
        holder("middle", "2", { acceptedAt: 2 }),
      ],
      ["young"],
    ],
    [
      "of pairs of the same priority the one whose older half is the younger",
      { count: 2, nvlink: true },
      linked("aabb"),
      [
        holder("a1", "0", { acceptedAt: 1 }),
        holder("a2", "1", { acceptedAt: 9 }),
        holder("b1", "2", { acceptedAt: 5 }),
        holder("b2", "3", { acceptedAt: 4 }),
      ],
      ["b1", "b2"],
    ],
    [
      "lower priority before youth",
      {},
      plain(2),
      [holder("old", "0", { priority: 10, acceptedAt: 1 }), holder("young", "1", { priority: 20, acceptedAt: 9 })],
      ["old"],
    ],
    [
      "those who may be stopped, not those who may not",
      {},
      plain(2),
      [holder("fixed", "0", { priority: 1, preemptible: false }), holder("a", "1", { priority: 400 })],
      ["a"],
    ],
    [
      "a pair that is linked, where the cheapest are not",
      { count: 2, nvlink: true },
      linked("abba"),
      [
        holder("a1", "0", { priority: 10 }),
        holder("b1", "1", { priority: 20 }),
        holder("b2", "2", { priority: 30 }),
        holder("a2", "3", { priority: 40 }),
      ],
      ["b1", "b2"],
    ],
    [
      "the partner of the GPU that is free",
      { count: 2, nvlink: true },
      linked("abba"),
      [holder("b1", "1", { priority: 10 }), holder("b2", "2", { priority: 10 }), holder("a2", "3", { priority: 40 })],
      ["a2"],
    ],
    [
      "one instance of the profile asked for",
      { migProfile: "1g.10gb" },
      [sliced(0, ["1g.10gb", "2g.20gb"])],
      [holder("small", "MIG-0-0", { priority: 200 }), holder("large", "MIG-0-1")],
      ["small"],
    ],
    [
      "the whole GPU's, that was given before it was sliced",
      { migProfile: "1g.10gb" },
      [sliced(0, ["1g.10gb"])],
      [holder("whole", "0")],
      ["whole"],
    ],
    [
      "those of the GPUs named",
      { uuids: ["GPU-1"] },
      plain(2),
      [holder("a", "0"), holder("b", "1", { priority: 400 })],
      ["b"],
    ],
    [
      "those whose GPU is large enough",
      { minVramMiB: 40_000 },
      [gpu(0), gpu(1, { vramMiB: 49_140 })],
      [holder("a", "0"), holder("b", "1", { priority: 400 })],
      ["b"],
    ],
    [
      "both of two who share what is needed",
      {},
      plain(1),
      [holder("leaving", "0"), holder("coming", "0", { priority: 200 })],
      ["coming", "leaving"],
    ],
  ])("%s", (_, request, gpus, holders, expected) => {
    expect(victims(request, gpus, holders)).toEqual(expected);
    expect(victims(request, [...gpus].reverse(), [...holders].reverse())).toEqual(expected);
  });

  it.each<[string, object, readonly Gpu[], readonly Holder[], number?]>([
    ["of equal priority", {}, plain(1), [holder("a", "0")], 100],
    ["of higher priority", {}, plain(1), [holder("a", "0", { priority: 600 })]],
    ["that may not be stopped", {}, plain(1), [holder("a", "0", { priority: 0, preemptible: false })]],
    [
      "shared with one that may not be stopped",
      {},
      plain(1),
      [holder("a", "0"), holder("b", "0", { preemptible: false })],
    ],
    ["where enough are free", {}, plain(2), [holder("a", "0")]],
    ["where none is asked for", { count: 0 }, plain(1), [holder("a", "0")]],
    ["where all together are too few", { count: 2 }, plain(2), [holder("a", "0"), holder("b", "1", { priority: 700 })]],
    [
      "where the other half of the link stays",
      { count: 2, nvlink: true },
      linked("abba"),
      [
        holder("a1", "0"),
        holder("b1", "1"),
        holder("b2", "2", { preemptible: false }),
        holder("a2", "3", { priority: 900 }),
      ],
    ],
    ["where the GPU is not to be given", {}, [gpu(0, { allocatable: false })], [holder("a", "0")]],
    [
      "where no instance has the profile",
      { migProfile: "7g.80gb" },
      [sliced(0, ["1g.10gb"])],
      [holder("a", "MIG-0-0")],
    ],
  ])("nobody's %s", (_, request, gpus, holders, priority) => {
    expect(victims(request, gpus, holders, priority === undefined ? {} : { priority })).toBeUndefined();
  });
});

describe("where more than the GPUs counts", () => {
  const holders = [holder("a", "0", { priority: 10 }), holder("b", "1", { priority: 20 })];

  it("takes the next best whose going is enough", () => {
    const needsB = (gone: readonly Holder[]) => gone.some(({ id }) => id === "b");
    expect(victims({}, plain(2), holders, { suffices: needsB })).toEqual(["b"]);
  });

  it("stops nobody beyond what the GPUs need, and nobody for nothing", () => {
    expect(victims({}, plain(2), holders, { suffices: (gone) => gone.length === 2 })).toBeUndefined();
    expect(victims({}, plain(2), holders, { suffices: () => false })).toBeUndefined();
  });
});

describe("on a machine with more holders than can be tried one by one", () => {
  const many = Array.from({ length: 8 }, (_, index) =>
    sliced(
      index,
      Array.from({ length: 7 }, () => "1g.10gb"),
    ),
  );
  const each = many.flatMap(({ index }, gpuNumber) =>
    Array.from({ length: 7 }, (_, n) =>
      holder(`w${String(index * 7 + n).padStart(2, "0")}`, `MIG-${gpuNumber}-${n}`, { priority: index * 7 + n }),
    ),
  );

  it("still takes no more than needed, and the cheapest of those", () => {
    const chosen = victims({ count: 20, migProfile: "1g.10gb" }, many, each);
    expect(chosen).toEqual(each.slice(0, 20).map(({ id }) => id));
  });

  it("takes one that holds much before many that hold little", () => {
    const [large, ...others] = [
      holder("large", "MIG-0-0,MIG-0-1,MIG-0-2,MIG-0-3,MIG-0-4,MIG-0-5,MIG-0-6", { priority: 400 }),
      ...each.slice(7),
    ];
    const chosen = victims({ count: 20, migProfile: "1g.10gb" }, many, [...others, ...(large ? [large] : [])]);
    expect(chosen).toHaveLength(14);
    expect(chosen).toContain("large");
  });

  it("keeps to what may not be stopped, and to what suffices", () => {
    const fixed = each.map((one, n) => (n % 2 === 0 ? { ...one, preemptible: false } : one));
    const chosen = victims({ count: 20, migProfile: "1g.10gb" }, many, fixed);
    expect(chosen).toEqual(each.flatMap(({ id }, n) => (n % 2 === 1 && n < 40 ? [id] : [])));
    expect(victims({ count: 20, migProfile: "1g.10gb" }, many, each, { suffices: () => false })).toBeUndefined();
  });
});
