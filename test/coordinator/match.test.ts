import { describe, expect, it } from "vitest";
import { type Candidate, explain, match, type Request } from "../../src/coordinator/match.ts";
import { Advertise, Reliability } from "../../src/protocol/agent-frames.ts";
import { Workload } from "../../src/protocol/workload.ts";
import { advertise, gpu } from "./agent-side.ts";

function node(name: string, gpus: object[], changes: Partial<Candidate> & { advertise?: object } = {}): Candidate {
  const { advertise: more, ...rest } = changes;
  const advertisement = Advertise.parse(JSON.parse(JSON.stringify(advertise({ gpus, ...more }))));
  const nothing = {
    taken: new Set<string>(),
    workloads: 0,
    memoryPromisedMiB: 0,
    staying: [],
    strange: new Set<string>(),
  };
  return { id: name, name, advertisement, ...nothing, ...rest };
}

function request(gpus: object, resources: object = {}): Request {
  return Workload.parse({ id: "w", generation: 1, image: "i", gpus, resources });
}

const t4 = (index = 0) => gpu({ index, uuid: `T4-${index}` });
const a100 = (index = 0, changes: object = {}) =>
  gpu({
    index,
    uuid: `A100-${index}`,
    name: "NVIDIA A100",
    computeCapability: "8.0",
    vramMiB: 40_960,
    tensorCores: { generation: 3, precisions: ["fp64", "tf32", "bf16", "fp16", "int8"], sparsity: true },
    ...changes,
  });
const h100 = (index = 0, changes: object = {}) =>
  gpu({
    index,
    uuid: `H100-${index}`,
    name: "NVIDIA H100",
    computeCapability: "9.0",
    vramMiB: 81_559,
    tensorCores: { generation: 4, precisions: ["fp64", "tf32", "bf16", "fp16", "fp8", "int8"], sparsity: true },
    ...changes,
  });
const linked = (count: number, reach: (a: number, b: number) => boolean) =>
  Array.from({ length: count }, (_, i) =>
    h100(i, {
      links: Array.from({ length: count }, (_, k) => k)
        .filter((k) => k !== i)
        .map((k) => ({ gpu: `H100-${k}`, kind: reach(i, k) ? "nvlink" : "pcie" })),
    }),
  );
const mig = (index: number, profiles: string[]) =>
  a100(index, {
    mig: {
      enabled: true,
      instances: profiles.map((profile, i) => ({
        uuid: `MIG-${index}-${i}`,
        profile,
        vramMiB: Number(/(\d+)gb/.exec(profile)?.[1]) * 1024,
        gpuInstanceId: i,
        computeInstanceId: 0,
      })),
    },
  });
const fleet = [node("small", [t4(0), t4(1)]), node("middle", [a100(0)]), node("large", [h100(0), h100(1)])];

describe("picks the smallest that fits", () => {
  const cases: [string, object, object, Candidate[], string, string[]][] = [
    ["one GPU of any kind", { count: 1 }, {}, fleet, "small", ["T4-0"]],
    ["VRAM", { count: 1, minVramMiB: 20_000 }, {}, fleet, "middle", ["A100-0"]],
    ["a precision", { count: 1, precisions: ["fp8"] }, {}, fleet, "large", ["H100-0"]],
    ["a compute capability", { count: 1, minComputeCapability: "8.0" }, {}, fleet, "middle", ["A100-0"]],
    [
      "a version compared by numbers",
      { count: 1, minComputeCapability: "9.0" },
      {},
      [node("old", [t4()]), node("new", [h100(0, { computeCapability: "10.0" })])],
      "new",
      ["H100-0"],
    ],
    ["several GPUs", { count: 2, minVramMiB: 60_000 }, {}, fleet, "large", ["H100-0", "H100-1"]],
    ["named GPUs", { count: 1, uuids: ["H100-1"] }, {}, fleet, "large", ["H100-1"]],
    ["the smallest GPU within a node", { count: 1 }, {}, [node("mixed", [h100(0), t4(1)])], "mixed", ["T4-1"]],
    [
      "the node that is used already",
      { count: 1 },
      {},
      [node("empty", [t4(0), t4(1)]), node("used", [t4(0), t4(1)], { taken: new Set(["T4-0"]) })],
      "used",
      ["T4-1"],
    ],
    ["no GPU at all", { count: 0 }, {}, [...fleet, node("plain", [])], "plain", []],
    [
      "memory",
      { count: 1 },
      { memoryMiB: 20_000 },
      [node("busy", [t4()], { memoryPromisedMiB: 16_000 }), node("idle", [h100()])],
      "idle",
      ["H100-0"],
    ],
    [
      "a MIG profile",
      { count: 1, migProfile: "1g.5gb" },
      {},
      [node("whole", [a100(0)]), node("split", [mig(0, ["3g.20gb", "1g.5gb"])])],
      "split",
      ["MIG-0-1"],
    ],
    [
      "two MIG instances",
      { count: 2, migProfile: "1g.5gb" },
      {},
      [node("split", [mig(0, ["1g.5gb"]), mig(1, ["1g.5gb"])])],
      "split",
      ["MIG-0-0", "MIG-1-0"],
    ],
    [
      "NVLinked GPUs",
      { count: 2, nvlink: true },
      {},
      [
        node(
          "pairs",
          linked(4, (a, b) => a % 2 === b % 2),
        ),
      ],
      "pairs",
      ["H100-0", "H100-2"],
    ],
  ];
  it.each(cases)("%s", (_name, gpus, resources, nodes, wanted, uuids) => {
    expect(match(request(gpus, resources), nodes)).toEqual({ fits: true, node: wanted, gpus: uuids });
  });
});

describe("of equal nodes prefers the steadier", () => {
  const DAY = 86_400;
  function past(changes: {
    downDays?: number;
    lost?: number;
    takenBack?: [cause: string, count: number][];
    days?: number;
  }): Reliability {
    const { downDays = 0, lost = 0, takenBack = [], days = 30 } = changes;
    return Reliability.parse({
      since: "2026-01-01T00:00:00.000Z",
      upSeconds: (days - downDays) * DAY,
      downSeconds: downDays * DAY,
      workloads: { succeeded: 5, failed: 0, stopped: 0, preempted: 0, lost },
      preemptions: takenBack.map(([cause, count]) => ({ cause, count, noticeSeconds: { min: 10, p50: 10 } })),
    });
  }
  const steady = past({ takenBack: [["owner", 1]], lost: 1 });
  const twin = (name: string, reliability: Reliability | undefined, gpus: object[] = [t4()], memoryMiB = 32_000) =>
    node(name, gpus, {
      advertise: {
        host: { architecture: "amd64", cpus: 8, memoryMiB },
        ...(reliability !== undefined && { reliability }),
      },
    });
  const picked = (a: Candidate, b: Candidate) => {
    const answers = [
      [a, b],
      [b, a],
    ].map((nodes) => match(request({ count: 1 }), nodes));
    return answers.map((answer) => (answer.fits ? answer.node : undefined));
  };

  it.each([
    ["up more of the time", steady, past({ downDays: 1 })],
    ["down less", past({ downDays: 1 }), past({ downDays: 4 })],
    ["interrupted less", steady, past({ takenBack: [["owner", 20]] })],
    ["that lost less work", steady, past({ lost: 20 })],
    ["known to be steady", steady, undefined],
    ["known to be steady, before one known for an hour", steady, past({ days: 1 / 24 })],
    ["nobody knows, before one that is often down", undefined, past({ downDays: 4 })],
    [
      "nobody knows, before one that is interrupted daily",
      undefined,
      past({ downDays: 1, takenBack: [["owner", 90]] }),
    ],
    [
      "interrupted, before one that is down: time counts first",
      past({ takenBack: [["owner", 90]] }),
      past({ downDays: 9 }),
    ],
  ])("the one %s", (_name, better, worse) => {
    expect(picked(twin("better", better), twin("worse", worse))).toEqual(["better", "better"]);
  });

  it("whatever some MiB of memory say, but not before the size of the node", () => {
    const unsteady = past({ downDays: 9 });
    const steadier = twin("steadier", steady, [t4()], 31_990);
    expect(picked(steadier, twin("other", unsteady, [t4()], 31_985))).toEqual(["steadier", "steadier"]);
    expect(picked(steadier, twin("smaller", unsteady, [t4()], 16_000))).toEqual(["smaller", "smaller"]);
    expect(picked(twin("large", steady, [h100()]), twin("small", unsteady))).toEqual(["small", "small"]);
  });

  it.each([
    ["a reboot", steady, past({ downDays: 0.01 })],
    ["one bad evening", past({}), past({ takenBack: [["foreign_process", 3]] })],
    [
      "what the coordinator took back itself",
      past({}),
      past({
        takenBack: [
          ["coordinator", 300],
          ["priority", 300],
        ],
      }),
    ],
  ])("%s decides nothing: the first named stays first", (_name, one, other) => {
    expect(picked(twin("a", one), twin("b", other))).toEqual(["a", "b"]);
  });
});

describe("says why nothing fits", () => {
  const cases: [string, object, object, Candidate, RegExp][] = [
    [
      "VRAM",
      { count: 1, minVramMiB: 20_000 },
      {},
      node("n", [t4()]),
      /^GPU 0 \(NVIDIA T4\) has 15360 MiB of VRAM, 20000 MiB asked for$/,
    ],
    [
      "unknown VRAM",
      { count: 1, minVramMiB: 1 },
      {},
      node("n", [gpu({ vramMiB: undefined })]),
      /unknown amount of VRAM/,
    ],
    ["precision", { count: 1, precisions: ["fp16", "fp8"] }, {}, node("n", [t4()]), /do not multiply fp8$/],
    [
      "compute capability",
      { count: 1, minComputeCapability: "8.9" },
      {},
      node("n", [a100()]),
      /has compute capability 8\.0, 8\.9 asked for/,
    ],
    [
      "MIG profile",
      { count: 1, migProfile: "7g.40gb" },
      {},
      node("n", [mig(0, ["1g.5gb"])]),
      /has a MIG instance 1g\.5gb, 7g\.40gb asked for/,
    ],
    ["no MIG", { count: 1, migProfile: "1g.5gb" }, {}, node("n", [a100()]), /no MIG instance to give, 1 asked for/],
    ["a whole GPU in MIG mode", { count: 1 }, {}, node("n", [mig(0, ["1g.5gb"])]), /no GPU to give/],
    ["uuid", { count: 1, uuids: ["GPU-x"] }, {}, node("n", [t4()]), /not among the UUIDs/],
    ["count", { count: 3 }, {}, node("n", [t4(0), t4(1)]), /it has 2 GPUs, 3 asked for/],
    [
      "some fit",
      { count: 2, minVramMiB: 20_000 },
      {},
      node("n", [t4(0), a100(1)]),
      /1 of 2 GPUs fit, 2 asked for: GPU 0 .*15360/,
    ],
    [
      "taken",
      { count: 2 },
      {},
      node("n", [t4(0), t4(1)], { taken: new Set(["T4-1"]) }),
      /1 of 2 fitting GPUs are free, 2 asked for/,
    ],
    [
      "a taken GPU's instances",
      { count: 1, migProfile: "1g.5gb" },
      {},
      node("n", [mig(0, ["1g.5gb"])], { taken: new Set(["A100-0"]) }),
      /0 of 1 fitting MIG instances are free/,
    ],
    [
      "unhealthy",
      { count: 1 },
      {},
      node("n", [
        gpu({
          allocatable: false,
          health: { status: "failed", reasons: [{ code: "xid_79", message: "fell off the bus" }] },
        }),
      ]),
      /not to be given \(failed: fell off the bus\)/,
    ],
    [
      "NVLink",
      { count: 3, nvlink: true },
      {},
      node(
        "n",
        linked(4, (a, b) => a % 2 === b % 2),
      ),
      /no 3 of its 4 free fitting GPUs reach each other over NVLink/,
    ],
    [
      "memory",
      { count: 0 },
      { memoryMiB: 30_000 },
      node("n", [], { memoryPromisedMiB: 4000 }),
      /28000 of 32000 MiB of memory are free, 30000 MiB asked for/,
    ],
    [
      "the owner's reserve",
      { count: 0 },
      { memoryMiB: 30_000 },
      node("n", [], {
        advertise: { policy: { images: [], hostPorts: "1-2", allowRoot: true, reserve: { memoryMiB: 8000 } } },
      }),
      /24000 of 24000 MiB/,
    ],
    ["CPUs", { count: 0 }, { cpus: 9 }, node("n", []), /lends 8 CPUs, 9 asked for/],
    [
      "number of workloads",
      { count: 0 },
      {},
      node("n", [], {
        workloads: 2,
        advertise: { policy: { images: [], hostPorts: "1-2", allowRoot: true, maxWorkloads: 2 } },
      }),
      /takes 2 workloads and has 2/,
    ],
    [
      "the most that one workload may have",
      { count: 0 },
      { pids: 300 },
      node("n", [], { advertise: { policy: { images: [], hostPorts: "1-2", allowRoot: true, max: { pids: 200 } } } }),
      /lends 200 processes to one workload, 300 asked for/,
    ],
    ["draining", { count: 0 }, {}, node("n", [], { advertise: { state: "draining" } }), /draining/],
    [
      "engine",
      { count: 0 },
      {},
      node("n", [], { advertise: { engine: { kind: "docker", available: false } } }),
      /engine/,
    ],
    ["a refusal", { count: 0 }, {}, node("n", [], { refusal: "refused it: not today" }), /^refused it: not today$/],
  ];
  it.each(cases)("%s", (_name, gpus, resources, candidate, why) => {
    const result = match(request(gpus, resources), [candidate]);
    expect(result).toEqual({ fits: false, reasons: [{ node: "n", name: "n", reason: expect.stringMatching(why) }] });
  });

  it("in one sentence, with at most five nodes named", () => {
    expect(explain([])).toBe("no node is connected");
    const reasons = Array.from({ length: 7 }, (_, i) => ({ name: `n${i}`, reason: "full" }));
    expect(explain(reasons)).toBe("n0: full; n1: full; n2: full; n3: full; n4: full; and 2 more nodes");
  });
});
