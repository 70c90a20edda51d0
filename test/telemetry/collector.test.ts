import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import type { GpuTelemetry } from "../../src/protocol/gpu.ts";
import { Collector, type Sample, type TelemetrySources } from "../../src/telemetry/collector.ts";

const host = { cpuPercent: 3, memoryTotalMiB: 1000 };

function sources(more: Partial<TelemetrySources>): TelemetrySources {
  return {
    // A machine without GPUs: the stream yields nothing until it is ended.
    async *gpus(_intervalMs, signal) {
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    },
    host: () => host,
    running: () => [],
    container: async () => undefined,
    now: Date.now,
    ...more,
  };
}

async function frames(count: number, from: TelemetrySources, intervalMs = 20): Promise<Sample[]> {
  const seen: Sample[] = [];
  const enough = Promise.withResolvers<void>();
  const emit = (sample: Sample) => {
    seen.push(sample);
    if (seen.length >= count) enough.resolve();
  };
  await using collector = new Collector(from, { emit });
  using _listening = collector.listen(intervalMs);
  await enough.promise;
  return seen;
}

test("a node without GPUs sends frames all the same", async () => {
  const [first] = await frames(2, sources({}));
  expect(first).toMatchObject({ gpus: [], host, workloads: [] });
});

test("each set of GPU samples is a frame at once, and a workload gets its share of its own GPUs", async () => {
  const set: GpuTelemetry[] = [
    { uuid: "GPU-a", utilizationPercent: 90, vramUsedMiB: 100 },
    { uuid: "GPU-b", utilizationPercent: 10, vramUsedMiB: 50 },
    { uuid: "GPU-c", utilizationPercent: 77, vramUsedMiB: 7 },
  ];
  const [frame] = await frames(
    1,
    sources({
      async *gpus(_intervalMs, signal) {
        yield set;
        await sleep(10_000, undefined, { signal }).catch(() => undefined);
      },
      running: () => [{ id: "w", containerId: "c", gpus: ["GPU-a", "GPU-b"] }],
    }),
    10_000,
  );
  expect(frame?.gpus).toEqual(set);
  expect(frame?.workloads).toEqual([{ id: "w", gpuUtilizationPercent: 50, vramUsedMiB: 150 }]);
});

test("GPU samples that stay away are left out instead of repeated", async () => {
  const seen = await frames(
    4,
    sources({
      async *gpus(_intervalMs, signal) {
        yield [{ uuid: "GPU-a" }];
        await sleep(10_000, undefined, { signal }).catch(() => undefined);
      },
    }),
    30,
  );
  expect(seen[0]?.gpus).toHaveLength(1);
  expect(seen.at(-1)?.gpus).toHaveLength(0);
});

test("the shortest interval any listener wants counts; with nobody listening nothing is sampled", async () => {
  const streams: string[] = [];
  const collector = new Collector(
    sources({
      async *gpus(intervalMs, signal) {
        streams.push(`${intervalMs} begins`);
        yield [{ uuid: "GPU-a" }];
        await sleep(10_000, undefined, { signal }).catch(() => undefined);
        streams.push(`${intervalMs} ends`);
      },
    }),
    { emit: () => undefined },
  );
  await sleep(50);
  expect(streams).toEqual([]);
  const slow = collector.listen(5000);
  await expect.poll(() => streams.at(-1)).toBe("5000 begins");
  const fast = collector.listen(250);
  await expect.poll(() => streams.at(-1)).toBe("250 begins");
  slow[Symbol.dispose]();
  await sleep(50);
  expect(collector.intervalMs).toBe(250);
  fast[Symbol.dispose]();
  fast[Symbol.dispose]();
  await expect.poll(() => streams).toEqual(["5000 begins", "5000 ends", "250 begins", "250 ends"]);
  expect(collector.intervalMs).toBeUndefined();
  await collector[Symbol.asyncDispose]();
  expect(process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length).toBeLessThanOrEqual(2);
});

test("a full read is a frame while no stream runs, and none while one does", async () => {
  const seen: Sample[] = [];
  await using collector = new Collector(
    sources({
      decorate: (samples) => samples.map((sample) => ({ ...sample, pressure: "normal" as const })),
      async *gpus(_intervalMs, signal) {
        yield [{ uuid: "GPU-a", powerWatts: 2 }];
        await sleep(10_000, undefined, { signal }).catch(() => undefined);
      },
    }),
    { emit: () => undefined },
  );
  using _hearing = collector.onSample((sample) => seen.push(sample));
  collector.read([{ uuid: "GPU-a", powerWatts: 1 }]);
  expect(seen.map(({ gpus }) => gpus)).toEqual([[{ uuid: "GPU-a", powerWatts: 1, pressure: "normal" }]]);
  expect(collector.latest).toBe(seen[0]);
  using _listening = collector.listen(5000);
  await expect.poll(() => seen.length).toBe(2);
  collector.read([{ uuid: "GPU-a", powerWatts: 3 }]);
  expect(seen.at(-1)?.gpus[0]).toMatchObject({ powerWatts: 2 });
});

test("a workload on a MIG instance has its memory; one whose processes are known has theirs", async () => {
  const [frame] = await frames(
    1,
    sources({
      async *gpus(_intervalMs, signal) {
        yield [{ uuid: "GPU-a", vramUsedMiB: 999, mig: [{ uuid: "MIG-1", vramUsedMiB: 70 }] }];
        await sleep(10_000, undefined, { signal }).catch(() => undefined);
      },
      running: () => [
        { id: "part", containerId: "c", gpus: ["MIG-1"] },
        { id: "known", containerId: "d", gpus: ["GPU-a"] },
      ],
      vramOf: (id) => (id === "known" ? 500 : undefined),
    }),
    10_000,
  );
  expect(frame?.workloads).toEqual([
    { id: "part", vramUsedMiB: 70 },
    { id: "known", vramUsedMiB: 500 },
  ]);
});

test("an engine that is away costs the containers' figures and nothing else", async () => {
  const [frame] = await frames(
    1,
    sources({
      running: () => [{ id: "w", containerId: "c", gpus: [] }],
      container: () => Promise.reject(new Error("no engine")),
    }),
  );
  expect(frame?.workloads).toEqual([{ id: "w" }]);
});

test("who leaves and who comes in one go do not cost a stream", async () => {
  const intervals: number[] = [];
  await using collector = new Collector(
    sources({
      async *gpus(intervalMs, signal) {
        intervals.push(intervalMs);
        yield [{ uuid: "GPU-a" }];
        await sleep(10_000, undefined, { signal }).catch(() => undefined);
      },
    }),
    { emit: () => undefined },
  );
  const first = collector.listen(500);
  await expect.poll(() => intervals).toEqual([500]);
  first[Symbol.dispose]();
  collector.listen(500);
  await sleep(50);
  expect(intervals).toEqual([500]);
});

test("each full read is a frame while the stream has been silent for two intervals", async () => {
  let clock = 1_000_000;
  const seen: Sample[] = [];
  await using collector = new Collector(
    sources({
      now: () => clock,
      async *gpus(_intervalMs, signal) {
        yield [{ uuid: "GPU-a", powerWatts: 1 }];
        await sleep(10_000, undefined, { signal }).catch(() => undefined);
      },
    }),
    { emit: (sample) => seen.push(sample) },
  );
  collector.listen(10_000);
  await expect.poll(() => seen.length).toBe(1);
  clock += 19_999;
  collector.read([{ uuid: "GPU-a", powerWatts: 2 }]);
  for (const powerWatts of [3, 4]) {
    clock += 1;
    collector.read([{ uuid: "GPU-a", powerWatts }]);
  }
  expect(seen.map(({ gpus }) => gpus[0]?.powerWatts)).toEqual([1, 3, 4]);
});

test("a stream that ends by itself, or breaks, is asked for again", async () => {
  let streams = 0;
  const seen = await frames(
    2,
    sources({
      async *gpus() {
        streams += 1;
        if (streams === 1) throw new Error("broken");
        yield [{ uuid: `GPU-${streams}` }];
      },
    }),
    100_000,
  );
  expect(seen.map(({ gpus }) => gpus)).toEqual([[{ uuid: "GPU-2" }], [{ uuid: "GPU-3" }]]);
});
