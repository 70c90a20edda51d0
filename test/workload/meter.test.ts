import { generateKeyPairSync, sign } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { UsageEvent } from "../../src/protocol/event.ts";
import { UsageEvent as UsageSchema } from "../../src/protocol/event.ts";
import type { GpuTelemetry } from "../../src/protocol/gpu.ts";
import { type ChainLink, chainProblem, verifyUsage } from "../../src/protocol/usage.ts";
import { Workload } from "../../src/protocol/workload.ts";
import { Meter } from "../../src/workload/meter.ts";
import type { WorkloadRecord } from "../../src/workload/record.ts";

const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const T0 = Date.parse("2026-01-01T00:00:00.000Z");

/** A node whose time a test makes; the ledger outlives its meters. */
class Node {
  /** Time that passed. */
  steadyMs = T0;
  /** What was done to the wall clock. */
  stepMs = 0;
  readonly records: UsageEvent[] = [];
  refuses = false;
  meter!: Meter;

  constructor() {
    this.startAgent();
  }

  now = () => this.steadyMs + this.stepMs;

  startAgent(known: readonly WorkloadRecord[] = []): void {
    const of = (workload: string, generation: number) =>
      this.records.filter((record) => record.workload === workload && record.generation === generation);
    const silent = () => undefined;
    this.meter = new Meter({
      journal: {
        commit: ({ events }) => {
          if (this.refuses) throw new Error("disk full");
          for (const event of events) this.records.push(UsageSchema.parse(event));
          return [];
        },
      },
      ledger: {
        last: (workload, generation) => of(workload, generation).at(-1),
        sum: (workload, generation) => {
          const sum = { cpuSeconds: 0, networkRxBytes: 0, networkTxBytes: 0 };
          for (const record of of(workload, generation)) {
            sum.cpuSeconds += record.cpuSeconds ?? 0;
            sum.networkRxBytes += record.networkRxBytes ?? 0;
            sum.networkTxBytes += record.networkTxBytes ?? 0;
          }
          return sum;
        },
      },
      sign: (bytes) => sign(null, bytes, privateKey),
      now: this.now,
      steady: () => this.steadyMs,
      log: { debug: silent, info: silent, warn: silent, error: silent },
    });
    this.meter.restore(known);
  }

  /** As SIGKILL leaves it: nothing more is written. */
  killAgent(): void {
    const kept = this.records.length;
    this.meter[Symbol.dispose]();
    this.records.length = kept;
  }
}

function running(node: Node, changes: Partial<WorkloadRecord> = {}): WorkloadRecord {
  const spec = Workload.parse({ id: "w", generation: 1, image: "a" });
  return {
    id: "w",
    generation: 1,
    spec,
    state: "running",
    hadSecrets: false,
    gpus: ["GPU-0", "GPU-1"],
    ports: [],
    containerId: "c1",
    restarts: 0,
    timings: {},
    acceptedAt: node.now(),
    startedAt: node.now(),
    startedSteady: node.steadyMs,
    ...changes,
  };
}

const ended = (record: WorkloadRecord, finishedAt: number): WorkloadRecord => ({
  ...record,
  state: "succeeded",
  finishedAt,
});

const sample = (uuid: string, utilizationPercent: number, powerWatts: number, vramUsedMiB: number): GpuTelemetry => ({
  uuid,
  utilizationPercent,
  powerWatts,
  vramUsedMiB,
});

/** The sum of the records, after checking that each follows the one before. */
function bill(records: readonly UsageEvent[]): number {
  let before: ChainLink | undefined;
  let seconds = 0;
  for (const record of records) {
    expect(chainProblem(record, before), JSON.stringify(record)).toBeUndefined();
    expect(verifyUsage(record, publicKey)).toBe(true);
    seconds += record.gpuSeconds;
    before = record;
  }
  return seconds;
}

describe("the records of a workload", () => {
  it("follow each other from its start to its end, and their sum is the time it held its GPUs", () => {
    const node = new Node();
    const record = running(node);
    node.meter.changed({ ...record, state: "accepted", startedAt: undefined as never });
    node.meter.changed(record);
    for (let minute = 0; minute < 3; minute++) {
      node.steadyMs += 60_000;
      node.meter.record();
    }
    node.steadyMs += 12_345;
    node.meter.changed(ended(record, node.now() - 45));
    expect(node.records.map(({ final }) => final)).toEqual([false, false, false, true]);
    expect(node.records[0]?.from).toBe("2026-01-01T00:00:00.000Z");
    expect(node.records.at(-1)?.to).toBe("2026-01-01T00:03:12.300Z");
    expect(bill(node.records)).toBeCloseTo(2 * 192.3, 6);
    node.steadyMs += 60_000;
    node.meter.record();
    node.meter.changed(ended(record, node.now()));
    expect(node.records).toHaveLength(4);
    node.meter[Symbol.dispose]();
  });

  it("of one that never started are none", () => {
    const node = new Node();
    const { startedAt: _, startedSteady: __, ...record } = running(node);
    node.meter.changed({ ...record, state: "pulling" });
    node.meter.changed({ ...record, state: "failed", finishedAt: node.now() });
    node.meter[Symbol.dispose]();
    expect(node.records).toEqual([]);
  });

  it("go on where the ledger ends after a kill, and get their end where it came meanwhile", () => {
    const node = new Node();
    const record = running(node);
    node.meter.changed(record);
    node.steadyMs += 60_000;
    node.meter.record();
    node.steadyMs += 30_000;
    node.killAgent();
    node.steadyMs += 100_000;
    node.startAgent([record]);
    node.steadyMs += 10_000;
    node.meter.record();
    node.killAgent();
    const end = node.now() + 5000;
    node.steadyMs += 3_600_000;
    node.startAgent([ended(record, end)]);
    expect(bill(node.records)).toBeCloseTo(2 * 205, 6);
    expect(node.records.at(-1)).toMatchObject({ final: true, to: new Date(end).toISOString() });
    node.startAgent([ended(record, end)]);
    expect(node.records).toHaveLength(3);
  });

  it("are written when the agent leaves, with all that was seen", () => {
    const node = new Node();
    node.meter.changed(running(node));
    for (let second = 0; second <= 10; second++) {
      node.meter.sampled([sample("GPU-0", 100, 300, 1000), sample("GPU-1", 50, 100, 500)]);
      if (second < 10) node.steadyMs += 1000;
    }
    node.meter[Symbol.dispose]();
    expect(node.records).toEqual([
      expect.objectContaining({
        gpuSeconds: 20,
        gpuUtilizationMeanPercent: 75,
        energyJoules: 4000,
        vramPeakMiB: 1500,
        observedSeconds: 10,
        final: false,
      }),
    ]);
  });

  it.each([-7_200_000, 7_200_000])("are not bent by a wall clock set by %i ms", (stepMs) => {
    const node = new Node();
    const record = running(node);
    node.meter.changed(record);
    node.steadyMs += 60_000;
    node.meter.record();
    node.stepMs = stepMs;
    node.steadyMs += 60_000;
    node.meter.record();
    node.steadyMs += 30_000;
    node.meter.changed(ended(record, node.now() - 10));
    expect(bill(node.records)).toBeCloseTo(2 * 150, 6);
  });

  it("lose nothing where the disk refuses for a while", () => {
    const node = new Node();
    const record = running(node);
    node.meter.changed(record);
    node.refuses = true;
    for (let minute = 0; minute < 3; minute++) {
      node.steadyMs += 60_000;
      node.meter.record();
    }
    node.meter.changed(ended(record, node.now()));
    node.steadyMs += 600_000;
    node.meter.record();
    expect(node.records).toEqual([]);
    node.refuses = false;
    node.meter.record();
    expect(bill(node.records)).toBe(2 * 180);
    expect(node.records).toHaveLength(1);
    node.meter[Symbol.dispose]();
    expect(node.records).toHaveLength(1);
  });
});

describe("what is told of an interval", () => {
  it("is only what was seen: no figures without samples, and none over a gap between them", () => {
    const node = new Node();
    node.meter.changed(running(node, { gpus: ["GPU-0"] }));
    node.steadyMs += 60_000;
    node.meter.record();
    expect(node.records[0]).not.toHaveProperty("energyJoules");
    expect(node.records[0]).not.toHaveProperty("gpuUtilizationMeanPercent");
    expect(node.records[0]?.observedSeconds).toBe(0);
    node.meter.sampled([sample("GPU-0", 100, 100, 10)]);
    node.steadyMs += 1000;
    node.meter.sampled([sample("GPU-0", 100, 100, 10)]);
    node.steadyMs += 30_000;
    node.meter.sampled([sample("GPU-0", 0, 0, 10)]);
    node.steadyMs += 1000;
    node.meter.sampled([sample("GPU-0", 0, 0, 10), sample("GPU-7", 100, 999, 9999)]);
    node.meter.record();
    expect(node.records[1]).toMatchObject({
      observedSeconds: 2,
      energyJoules: 100,
      gpuUtilizationMeanPercent: 50,
      vramPeakMiB: 10,
    });
    node.meter[Symbol.dispose]();
  });

  it("reaches over the border of two intervals without losing or doubling energy", () => {
    const node = new Node();
    const record = running(node, { gpus: ["GPU-0"] });
    node.meter.changed(record);
    for (let step = 0; step < 1200; step++) {
      node.meter.sampled([sample("GPU-0", 50, 200, 10)]);
      if (step % 7 === 0) node.meter.record();
      node.steadyMs += 500;
    }
    node.meter.changed(ended(record, node.now()));
    const joules = node.records.reduce((sum, { energyJoules = 0 }) => sum + energyJoules, 0);
    expect(joules).toBeCloseTo(200 * 599.5, 3);
  });

  it("of a MIG instance is its memory; the power of the whole board is nobody's alone", () => {
    const node = new Node();
    node.meter.changed(running(node, { gpus: ["MIG-a"] }));
    const board = { ...sample("GPU-0", 90, 300, 9000), mig: [{ uuid: "MIG-a", vramUsedMiB: 700 }] };
    for (let second = 0; second < 5; second++) {
      node.meter.sampled([board]);
      node.steadyMs += 1000;
    }
    node.meter[Symbol.dispose]();
    expect(node.records[0]).toMatchObject({ vramPeakMiB: 700, observedSeconds: 4, gpuSeconds: 5 });
    expect(node.records[0]).not.toHaveProperty("energyJoules");
  });

  it("counts CPU and network by what was added, over restarts of container and agent", () => {
    const node = new Node();
    const record = running(node, { gpus: [] });
    node.meter.changed(record);
    const count = (cpuSeconds: number, networkRxBytes: number) =>
      node.meter.counted("c1", { cpuSeconds, networkRxBytes, networkTxBytes: 0 });
    count(5, 100);
    count(7, 150);
    node.meter.record();
    // The container is started again: it counts from zero.
    count(1, 20);
    node.meter.record();
    node.killAgent();
    node.startAgent([record]);
    node.meter.counted("other", { cpuSeconds: 999, networkRxBytes: 0, networkTxBytes: 0 });
    count(12, 300);
    node.meter.record();
    expect(node.records.map(({ cpuSeconds }) => cpuSeconds)).toEqual([7, 1, 4]);
    expect(node.records.map(({ networkRxBytes }) => networkRxBytes)).toEqual([150, 20, 130]);
    node.meter[Symbol.dispose]();
    expect(node.meter.isMetering).toBe(false);
  });
});

describe("whatever happens", () => {
  it("the records of each workload make one chain whose sum is its time", () => {
    let seed = 20_260_101;
    const random = () => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      return seed / 2 ** 31;
    };
    for (let history = 0; history < 200; history++) {
      const node = new Node();
      const startedSteady = node.steadyMs;
      let record = running(node);
      node.meter.changed(record);
      const steps = 1 + Math.floor(random() * 12);
      for (let step = 0; step < steps; step++) {
        node.steadyMs += Math.floor(random() * 90_000);
        const dice = random();
        if (dice < 0.5) node.meter.record();
        else if (dice < 0.7) {
          node.killAgent();
          node.steadyMs += Math.floor(random() * 600_000);
          node.startAgent([record]);
        } else if (dice < 0.8) node.stepMs += Math.floor((random() - 0.5) * 7_200_000);
        else node.meter.sampled([sample("GPU-0", 10, 10, 10), sample("GPU-1", 10, 10, 10)]);
      }
      const seconds = (node.steadyMs - startedSteady) / 1000;
      record = ended(record, node.now());
      node.meter.changed(record);
      expect(bill(node.records)).toBeCloseTo(2 * seconds, 3);
      expect(node.records.filter(({ final }) => final)).toHaveLength(1);
    }
  });
});
