import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, it, onTestFinished } from "vitest";
import { describeHistory } from "../../src/local/history.ts";
import type { EventBody } from "../../src/protocol/event.ts";
import { openStore } from "../../src/store/store.ts";
import { History } from "../../src/telemetry/history.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const START = Date.parse("2026-01-02T03:00:00.000Z");
const GPU = "GPU-11111111-2222-3333-4444-555555555555";

/** A node's history on its disk, at a time that the test turns. */
class Bench {
  readonly dir = mkdtempSync(join(tmpdir(), "gpunode-history-"));
  readonly path = join(this.dir, "state.db");
  now = START;
  complaints: string[] = [];
  store = this.#open();
  history = this.#remember();

  constructor() {
    onTestFinished(async () => {
      await this.#close();
      rmSync(this.dir, { recursive: true, force: true });
    });
  }

  #open() {
    return openStore({ path: this.path, now: () => this.now });
  }

  #remember() {
    const log = { debug: (_: object, message: string) => void this.complaints.push(message) };
    const history = new History({ memory: this.store.history, now: () => this.now, log });
    this.store.onAppend((events) => history.happened(events));
    return history;
  }

  async #close() {
    this.history[Symbol.dispose]();
    await this.store[Symbol.asyncDispose]();
  }

  /** The daemon leaves, and the next one finds what it left; `meanwhile` is done to the file in between. */
  async restart(meanwhile = () => {}) {
    await this.#close();
    meanwhile();
    this.store = this.#open();
    this.history = this.#remember();
  }

  sample(utilizationPercent: number | undefined, host: object = {}) {
    const gpu = { uuid: GPU, ...(utilizationPercent !== undefined && { utilizationPercent, powerWatts: 400 }) };
    this.history.sampled({ at: new Date(this.now).toISOString(), gpus: [gpu], host });
  }

  /** Samples every `stepMs` for so long. */
  run(forMs: number, stepMs: number, percentAt: (ms: number) => number) {
    for (const end = this.now + forMs; this.now < end; ) {
      this.now += stepMs;
      this.sample(percentAt(this.now));
    }
  }

  tell(...events: EventBody[]) {
    this.store.append(events);
  }

  past(hours: number) {
    return describeHistory(this.history.past(hours));
  }

  /** What is known of the GPU: `[minutes ago, value]`. */
  known(hours: number) {
    const { startMs, stepMs, utilizationPercent } = this.past(hours).series[GPU] ?? {};
    return (utilizationPercent ?? []).flatMap((value, at) =>
      value === null ? [] : [[(this.now - (startMs ?? 0) - at * (stepMs ?? 0)) / MINUTE, value] as const],
    );
  }
}

describe("figures", () => {
  it("are told in columns of one length, at the resolution the hours ask for", () => {
    const bench = new Bench();
    bench.sample(40);
    bench.run(10 * MINUTE, 1_000, () => 40);
    for (const [hours, stepMs] of [
      [1, 10_000],
      [6, MINUTE],
      [24, 5 * MINUTE],
    ] as const) {
      const { series, host, at } = bench.past(hours);
      const gpu = series[GPU];
      expect(at).toBe("2026-01-02T03:10:00.000Z");
      expect([gpu?.startMs, gpu?.stepMs]).toEqual([bench.now - hours * HOUR, stepMs]);
      const length = (hours * HOUR) / stepMs + 1;
      for (const column of [gpu?.utilizationPercent, gpu?.max.powerWatts, gpu?.vramUsedMiB, host.cpuPercent])
        expect(column).toHaveLength(length);
      expect(gpu?.utilizationPercent.filter((value) => value !== null)).toEqual(
        Array.from({ length: (10 * MINUTE) / stepMs }, () => 40),
      );
      expect(gpu?.vramUsedMiB.every((value) => value === null)).toBe(true);
    }
  });

  it("are there before they are put away, and not twice afterwards", () => {
    const bench = new Bench();
    bench.sample(0);
    bench.run(MINUTE, 1_000, (ms) => (ms > START + 30_000 ? 100 : 0));
    const before = bench.past(1);
    bench.history.save();
    expect(bench.past(1)).toEqual(before);
    bench.history.save();
    expect(bench.past(1)).toEqual(before);
    expect(before.series[GPU]?.max.utilizationPercent.filter((value) => value !== null)).toEqual([
      0, 0, 0, 100, 100, 100,
    ]);
  });

  it("of a node that nobody looks at come from one reading a minute", () => {
    const bench = new Bench();
    bench.sample(10);
    bench.run(5 * MINUTE, MINUTE, () => 10);
    expect(bench.known(1).map(([, value]) => value)).toEqual(Array.from({ length: 30 }, () => 10));
  });

  it("outlive the daemon; the time without one is a gap, also within a bucket that goes on", async () => {
    const bench = new Bench();
    bench.sample(50);
    bench.run(2 * MINUTE, 1_000, () => 50);
    await bench.restart();
    bench.now += 2 * MINUTE;
    bench.sample(90);
    bench.run(MINUTE, 1_000, () => 90);
    const minutes = bench.known(6);
    expect(minutes).toEqual([
      [5, 50],
      [4, 50],
      [1, 90],
    ]);
    // Two minutes at 50 and one at 90.
    expect(bench.known(24)).toEqual([[5, 63.3]]);
  });

  it("that come after a long silence, or from before, draw no line", () => {
    const bench = new Bench();
    bench.sample(0);
    bench.now += 10 * MINUTE;
    bench.sample(100);
    bench.now -= 5 * MINUTE;
    bench.sample(100);
    expect(bench.known(1)).toEqual([]);
    bench.sample(undefined);
    bench.now += 1_000;
    bench.sample(100);
    expect(bench.known(1)).toEqual([]);
  });

  it("are forgotten level by level, and what lies in the future with them", () => {
    const bench = new Bench();
    bench.sample(70);
    bench.run(MINUTE, 1_000, () => 70);
    bench.history.save();
    const left = () => {
      bench.history.save();
      return [10_000, MINUTE, 5 * MINUTE].map((stepMs) => bench.store.history.buckets(stepMs, 0).length);
    };
    expect(left()).toEqual([6, 1, 1]);
    bench.now = START + HOUR + 2 * MINUTE;
    expect(left()).toEqual([0, 1, 1]);
    bench.now = START + 7 * HOUR;
    expect(left()).toEqual([0, 0, 1]);
    bench.now = START + 25 * HOUR;
    expect(left()).toEqual([0, 0, 0]);
    bench.sample(70);
    bench.run(MINUTE, 1_000, () => 70);
    expect(left()).toEqual([6, 1, 1]);
    bench.now = START;
    expect(left()).toEqual([0, 0, 0]);
  });

  it("of the host are its own: what counts bytes becomes a rate, and one set back none", () => {
    const bench = new Bench();
    const host = (networkRxBytes: number) => ({ cpuPercent: 25, memoryUsedMiB: 1_000, networkRxBytes });
    bench.sample(0, host(1_000));
    bench.now += 10_000;
    bench.sample(0, host(21_000));
    bench.now += 10_000;
    bench.sample(0, host(5));
    const { cpuPercent, memoryUsedMiB, networkRxBytesPerSecond, networkTxBytesPerSecond } = bench.past(1).host;
    const told = (column: (number | null)[]) => column.slice(-3, -1);
    expect([cpuPercent, memoryUsedMiB, networkRxBytesPerSecond, networkTxBytesPerSecond].map(told)).toEqual([
      [25, 25],
      [1_000, 1_000],
      [2_000, null],
      [null, null],
    ]);
  });

  it("of eight GPUs over a day are small on the disk", { timeout: 120_000 }, async () => {
    const bench = new Bench();
    const uuids = Array.from({ length: 8 }, (_, n) => GPU.replace("1111", `${1000 + n}`));
    for (let at = 0; at < 25 * HOUR; at += 10_000) {
      bench.now = START + at;
      const figures = { utilizationPercent: at % 101, vramUsedMiB: at % 80_000, powerWatts: (at % 700) + 0.25 };
      bench.history.sampled({
        at: new Date(bench.now).toISOString(),
        gpus: uuids.map((uuid) => ({ uuid, ...figures, temperatureCelsius: at % 90 })),
        host: { cpuPercent: at % 100, memoryUsedMiB: at, networkRxBytes: at * 1000, networkTxBytes: at * 10 },
      });
      if (at % MINUTE === 0) bench.history.save();
    }
    expect(Object.keys(bench.past(24).series)).toEqual(uuids);
    expect(JSON.stringify(bench.past(24)).length).toBeLessThan(200_000);
    await bench.restart();
    expect(statSync(bench.path).size).toBeLessThan(3 * 1024 * 1024);
  });
});

describe("who held a GPU", () => {
  const work = (bench: Bench, changes: object) =>
    bench.history.workload({ id: "train", generation: 1, gpus: [GPU], startedAt: START, ...changes });

  it("is told from start to end, and open while it is there", () => {
    const bench = new Bench();
    work(bench, { startedAt: undefined });
    bench.history.workload({ id: "cpu-only", generation: 1, gpus: [], startedAt: START });
    expect(bench.past(1).spans).toEqual([]);
    work(bench, {});
    bench.now += 5 * MINUTE;
    const span = { workload: "train", generation: 1, gpus: [GPU], fromMs: START };
    expect(bench.past(1).spans).toEqual([span]);
    bench.history.save();
    expect(bench.past(1).spans).toEqual([span]);
    // Started again after a failure: it had the GPU all the time.
    work(bench, { startedAt: bench.now });
    work(bench, { startedAt: bench.now, finishedAt: bench.now });
    expect(bench.past(1).spans).toEqual([{ ...span, toMs: bench.now }]);
    bench.history.save();
    bench.now += 2 * HOUR;
    expect(bench.past(1).spans).toEqual([]);
    expect(bench.past(6).spans).toHaveLength(1);
  });

  it("goes on over a restart, and ends where it ended meanwhile", async () => {
    const bench = new Bench();
    work(bench, {});
    bench.history.workload({ id: "lost", generation: 2, gpus: [GPU], startedAt: START });
    bench.now += 5 * MINUTE;
    await bench.restart();
    bench.now += 5 * MINUTE;
    work(bench, { finishedAt: START + 8 * MINUTE });
    expect(
      bench.past(1).spans.map(({ workload, fromMs, toMs }) => [workload, fromMs - START, (toMs ?? 0) - START]),
    ).toEqual([
      ["lost", 0, 5 * MINUTE],
      ["train", 0, 8 * MINUTE],
    ]);
  });

  it("is bounded, however many come and go", () => {
    const bench = new Bench();
    for (let n = 0; n < 1_200; n++) {
      bench.now += 1_000;
      bench.history.workload({
        id: `w${n}`,
        generation: 1,
        gpus: [GPU],
        startedAt: bench.now - 500,
        finishedAt: bench.now,
      });
    }
    bench.history.save();
    const { spans } = bench.past(24);
    expect(spans).toHaveLength(1_000);
    expect(spans.at(-1)?.workload).toBe("w1199");
  });
});

describe("what happened", () => {
  it("is told of what an owner wants to see, and of nothing else", () => {
    const bench = new Bench();
    bench.tell(
      { kind: "node", state: "started", reason: "gpunode 1" },
      { kind: "workload", workload: "train", generation: 1, state: "running", gpus: [GPU] },
      { kind: "gpuHealth", gpu: GPU, status: "failed", reasons: [{ code: "lost", message: "it fell off the bus" }] },
      { kind: "workload", workload: "train", generation: 1, state: "failed", gpus: [GPU], message: "exit code 3" },
      { kind: "preemption", phase: "notice", cause: "owner", workloads: ["train"], gpus: [GPU], message: "taken back" },
      { kind: "preemption", phase: "finished", cause: "owner", workloads: ["train"], gpus: [GPU] },
      { kind: "pressure", resource: "vram", gpu: GPU, level: "critical", valuePercent: 99.4, thresholdPercent: 99 },
      { kind: "pressure", resource: "vram", gpu: GPU, level: "normal", valuePercent: 10, thresholdPercent: 95 },
    );
    const told = [
      { kind: "node", state: "started", message: "gpunode 1" },
      { kind: "health", state: "failed", gpus: [GPU], message: "it fell off the bus" },
      { kind: "workload", state: "failed", gpus: [GPU], workloads: ["train"], message: "exit code 3" },
      { kind: "preemption", state: "notice", gpus: [GPU], workloads: ["train"], message: "taken back" },
      { kind: "pressure", state: "critical", gpus: [GPU], message: "VRAM 99 % in use" },
    ].map((mark) => ({ ...mark, atMs: START }));
    expect(bench.past(1).marks).toEqual(told);
    bench.history.save();
    expect(bench.past(1).marks).toEqual(told);
    bench.now += 25 * HOUR;
    bench.history.save();
    expect(bench.store.history.marks(0)).toEqual([]);
  });

  it("is bounded", () => {
    const bench = new Bench();
    for (let n = 0; n < 700; n++) {
      bench.now += 1_000;
      bench.tell({ kind: "node", state: "available", reason: `r${n}` });
      if (n % 100 === 0) bench.history.save();
    }
    bench.history.save();
    expect(
      bench
        .past(24)
        .marks.map(({ message }) => message)
        .slice(-1),
    ).toEqual(["r699"]);
    expect(bench.past(24).marks.length).toBe(500);
  });
});

it("a disk that is full costs nothing but time: what is pending is put away when there is room", async () => {
  const bench = new Bench();
  await bench.restart(() => {
    const db = new DatabaseSync(bench.path);
    db.exec(`CREATE TRIGGER full BEFORE INSERT ON history WHEN (SELECT count(*) FROM settings WHERE key = 'full')
             BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END`);
    db.close();
  });
  bench.store.set("full", "yes");
  bench.sample(30);
  bench.run(2 * MINUTE, 1_000, () => 30);
  const before = bench.past(1);
  bench.history.save();
  expect(bench.complaints).toEqual(["the history could not be put away"]);
  expect(bench.store.problems.map(({ code }) => code)).toEqual(["state_refused"]);
  expect(bench.past(1)).toEqual(before);
  // Longer than the finest level reaches back: the newest hour is kept.
  bench.run(2 * HOUR, 10_000, () => 30);
  bench.history.save();
  bench.store.set("full", undefined);
  bench.history.save();
  await bench.restart();
  expect(bench.store.problems).toEqual([]);
  expect(bench.known(1).map(([, value]) => value)).toEqual(Array.from({ length: 360 }, () => 30));
  expect(bench.known(6).length).toBe(60);
});
