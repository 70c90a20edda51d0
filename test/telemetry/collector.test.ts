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
  await using _collector = new Collector(from, { intervalMs, emit });
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

test("another interval starts the stream anew with it, and the end leaves no timer", async () => {
  const intervals: number[] = [];
  const collector = new Collector(
    sources({
      async *gpus(intervalMs, signal) {
        intervals.push(intervalMs);
        yield [{ uuid: "GPU-a" }];
        await sleep(10_000, undefined, { signal }).catch(() => undefined);
      },
    }),
    { intervalMs: 5000, emit: () => undefined },
  );
  await expect.poll(() => intervals).toEqual([5000]);
  collector.intervalMs = 250;
  await expect.poll(() => intervals).toEqual([5000, 250]);
  await collector[Symbol.asyncDispose]();
  expect(process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length).toBeLessThanOrEqual(2);
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
