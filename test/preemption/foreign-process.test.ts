import { beforeEach, describe, expect, it } from "vitest";
import type { Claim } from "../../src/preemption/claim.ts";
import { type ForeignProcess, type ForeignUse, trackForeignUse } from "../../src/preemption/foreign-process.ts";

const GPU_0 = "GPU-00000000-0000-0000-0000-000000000000";
const GPU_1 = "GPU-11111111-1111-1111-1111-111111111111";
const OWN = "a".repeat(64);

let clock: number;
/** The claims that end work, each time they changed. */
let raised: (readonly Claim[])[];
/** GPUs that are given to nobody though their work goes on, as told last. */
let kept: string[];
/** What was asked for after the last read. */
let again: number | undefined;
let use: ForeignUse;

beforeEach(() => {
  clock = 1_000_000;
  raised = [];
  kept = [];
  use = track();
});

function track(options: Partial<Parameters<typeof trackForeignUse>[0]> = {}): ForeignUse {
  return trackForeignUse({
    limits: { vramMiB: 2048, ms: 10_000 },
    backAfterMs: 60_000,
    steady: () => clock,
    isOwnContainer: (id) => id === OWN,
    nameOf: (gpu) => (gpu === GPU_0 ? "GPU 0" : "GPU 1"),
    raise: (claims) => {
      const stops = claims.filter(({ work }) => work === "stop");
      if (JSON.stringify(stops) !== JSON.stringify(raised.at(-1) ?? [])) raised.push(stops);
      kept = claims.flatMap(({ gpus = [], work }) => (work === "leave" ? gpus : []));
    },
    lookAgain: (inMs) => {
      again = inMs;
    },
    ...options,
  });
}

const blender = (more: Partial<ForeignProcess> = {}): ForeignProcess => ({
  gpu: GPU_0,
  pid: 123,
  name: "/usr/bin/blender",
  owner: { unit: "app-blender.scope" },
  vramUsedMiB: 5000,
  ...more,
});

/** A read so many seconds later; what it asked for. */
function readAfter(seconds: number, processes: readonly ForeignProcess[] | undefined): number | undefined {
  clock += seconds * 1000;
  again = undefined;
  use.read(processes);
  return again;
}

const gpusHeld = () => (raised.at(-1) ?? []).flatMap(({ gpus = [] }) => gpus);

describe("a process of the owner", () => {
  it("takes its GPU back once it has used too much of it for long enough, and says who it is", () => {
    expect(readAfter(0, [blender()])).toBe(10_000);
    expect(readAfter(9.999, [blender()])).toBe(1);
    expect(raised).toEqual([]);
    expect(readAfter(0.001, [blender({ vramUsedMiB: 6000.4 })])).toBeUndefined();
    expect(raised).toEqual([
      [
        {
          gpus: [GPU_0],
          work: "stop",
          message: "blender (pid 123, app-blender.scope) uses 6000 MiB of GPU 0",
        },
      ],
    ]);
  });

  it("keeps its GPU from being given to others from the first read on: nobody is put on it to be taken off again", () => {
    readAfter(0, [blender()]);
    expect(kept).toEqual([GPU_0]);
    readAfter(5, []);
    expect(kept).toEqual([]);
    readAfter(1, [blender(), blender({ gpu: GPU_1 })]);
    readAfter(10, [blender()]);
    expect([gpusHeld(), kept]).toEqual([[GPU_0], []]);
    readAfter(1, [blender(), blender({ gpu: GPU_1 })]);
    expect([gpusHeld(), kept]).toEqual([[GPU_0], [GPU_1]]);
  });

  it("counts from two reads at least that far apart, however rare they are", () => {
    readAfter(0, [blender()]);
    readAfter(60, [blender()]);
    expect(gpusHeld()).toEqual([GPU_0]);
  });

  it("is told once while it is there, whatever it uses meanwhile", () => {
    readAfter(0, [blender()]);
    for (let read = 0; read < 20; read += 1) readAfter(60, [blender({ vramUsedMiB: 3000 + read })]);
    expect(raised).toHaveLength(1);
  });

  it("gives the GPU back when it has been gone for long enough, and a read is asked for then", () => {
    readAfter(0, [blender()]);
    readAfter(10, [blender()]);
    expect(readAfter(5, [])).toBe(60_000);
    expect(readAfter(59, [])).toBe(1000);
    expect(raised).toHaveLength(1);
    expect(readAfter(1, [])).toBeUndefined();
    expect(raised.slice(1)).toEqual([[]]);
  });

  it("is gone, too, when it uses little; when it comes back in between nothing is given back", () => {
    readAfter(0, [blender()]);
    readAfter(10, [blender()]);
    readAfter(10, [blender({ vramUsedMiB: 2048 })]);
    readAfter(50, [blender()]);
    readAfter(20, [blender({ vramUsedMiB: 100 })]);
    readAfter(59, [blender({ vramUsedMiB: 100 })]);
    expect(raised).toHaveLength(1);
    readAfter(1, [blender({ vramUsedMiB: 100 })]);
    expect(raised.slice(1)).toEqual([[]]);
  });

  it("that dips below the limit at one read begins anew", () => {
    readAfter(0, [blender()]);
    readAfter(5, [blender({ vramUsedMiB: 2048 })]);
    readAfter(5, [blender()]);
    readAfter(9, [blender()]);
    expect(raised).toEqual([]);
    readAfter(1, [blender()]);
    expect(gpusHeld()).toEqual([GPU_0]);
  });

  it.each([
    ["whose owner cannot be named", { owner: undefined }],
    ["in a container of ours that is no workload yet, or any more", { owner: { container: OWN } }],
    ["whose VRAM the driver does not tell", { vramUsedMiB: undefined }],
    ["at the limit and not above it", { vramUsedMiB: 2048 }],
  ])("%s never takes it", (_, more) => {
    const { vramUsedMiB, ...process } = { ...blender(), ...more };
    const told = [{ ...process, ...(vramUsedMiB !== undefined && { vramUsedMiB }) }];
    for (let read = 0; read < 10; read += 1) expect(readAfter(60, told)).toBeUndefined();
    expect(raised).toEqual([]);
  });

  it("in somebody else's container does", () => {
    const owner = { container: "b".repeat(64) };
    readAfter(0, [blender({ owner })]);
    readAfter(10, [blender({ owner })]);
    expect(raised[0]?.[0]?.message).toBe("blender (pid 123, container bbbbbbbbbbbb) uses 5000 MiB of GPU 0");
  });

  it("is another one where its id was given again", () => {
    readAfter(0, [blender()]);
    readAfter(6, [blender({ name: "/usr/bin/python3" })]);
    readAfter(6, [blender({ name: "/usr/bin/python3", owner: { unit: "user@1000.service" } })]);
    readAfter(9, [blender({ name: "/usr/bin/python3", owner: { unit: "user@1000.service" } })]);
    expect(raised).toEqual([]);
  });
});

describe("several", () => {
  it("processes are each judged alone: many small ones are no big one", () => {
    const small = [1, 2, 3, 4].map((pid) => blender({ pid, vramUsedMiB: 2000 }));
    readAfter(0, small);
    readAfter(60, small);
    expect(raised).toEqual([]);
  });

  it("GPUs are held and given back each for itself, and the whole set is told each time", () => {
    const onBoth = [blender(), blender({ gpu: GPU_1, vramUsedMiB: 3000 })];
    readAfter(0, onBoth);
    readAfter(10, onBoth);
    expect(gpusHeld()).toEqual([GPU_0, GPU_1]);
    readAfter(10, [blender({ gpu: GPU_1 })]);
    readAfter(60, [blender({ gpu: GPU_1 })]);
    expect(gpusHeld()).toEqual([GPU_1]);
    readAfter(10, [blender()]);
    readAfter(10, [blender()]);
    expect(gpusHeld()).toEqual([GPU_1, GPU_0]);
    expect(raised).toHaveLength(3);
  });

  it("processes on one GPU hold it until the last is gone; the claim names one that is there", () => {
    const game = blender({ pid: 200, name: "game.exe", vramUsedMiB: 4000 });
    readAfter(0, [blender(), game]);
    readAfter(10, [blender(), game]);
    expect(raised.at(-1)).toMatchObject([{ message: expect.stringMatching(/^blender/) }]);
    readAfter(60, [game]);
    expect(raised.at(-1)).toMatchObject([{ message: expect.stringMatching(/^game\.exe/) }]);
    readAfter(60, []);
    readAfter(60, []);
    expect(raised.at(-1)).toEqual([]);
    expect(raised).toHaveLength(3);
  });

  it("a newcomer holds on to a GPU that was about to be given back", () => {
    readAfter(0, [blender()]);
    readAfter(10, [blender()]);
    readAfter(10, []);
    readAfter(55, [blender({ pid: 7 })]);
    readAfter(5, [blender({ pid: 7 })]);
    expect(raised).toHaveLength(1);
    readAfter(5, [blender({ pid: 7 })]);
    expect(raised.at(-1)).toMatchObject([{ message: expect.stringContaining("pid 7") }]);
  });

  it("entries of one process, for graphics and for computing, are the same memory", () => {
    const twice = [blender({ vramUsedMiB: 1500 }), blender({ vramUsedMiB: 1500 })];
    readAfter(0, twice);
    readAfter(60, twice);
    expect(raised).toEqual([]);
  });
});

describe("a read that failed", () => {
  it("neither takes nor gives back, and is tried again where something is pending", () => {
    expect(readAfter(0, undefined)).toBeUndefined();
    readAfter(0, [blender()]);
    expect(readAfter(10, undefined)).toBe(1000);
    expect(raised).toEqual([]);
    readAfter(1, [blender()]);
    expect(gpusHeld()).toEqual([GPU_0]);
    expect(readAfter(600, undefined)).toBeUndefined();
    readAfter(1, []);
    expect(readAfter(60, undefined)).toBe(1000);
    expect(raised).toHaveLength(1);
    readAfter(1, []);
    expect(raised.at(-1)).toEqual([]);
  });
});

it("a name can do no harm: line ends, control characters and length are taken out of it", () => {
  const hostile = [
    { name: `/tmp/a\u001b[2J\nGPU 7 is free\u202e${"x".repeat(500)}`, expected: /^a\[2JGPU 7 is freex{40,}… \(pid/ },
    { name: "/tmp/\n\u0000", expected: /^a process \(pid/ },
    { name: "", expected: /^a process \(pid/ },
  ];
  for (const { name, expected } of hostile) {
    use = track();
    const process = blender({ name, owner: { unit: "evil\n.scope" } });
    readAfter(0, [process]);
    readAfter(10, [process]);
    const message = raised.at(-1)?.[0]?.message ?? "";
    expect(message).toMatch(expected);
    expect(message).not.toMatch(/\p{C}/u);
    expect(message.length).toBeLessThan(150);
    expect(message).toContain(", evil.scope)");
  }
});

it("without a time to wait for, the GPU is given back with the read that shows it free", () => {
  use = track({ backAfterMs: 0 });
  readAfter(0, [blender()]);
  readAfter(10, [blender()]);
  readAfter(1, []);
  expect(raised.slice(1)).toEqual([[]]);
});
