import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe } from "../../src/local/describe.ts";
import { describeHistory } from "../../src/local/history.ts";
import { createOwner, type Owner } from "../../src/preemption/owner.ts";
import { Register } from "../../src/preemption/register.ts";
import { Reliability } from "../../src/protocol/agent-frames.ts";
import { DurableEvent, EventBody, UsageEvent } from "../../src/protocol/event.ts";
import { MAX_RESUMED_EVENT } from "../../src/protocol/limits.ts";
import { foldUsage, signUsage } from "../../src/protocol/usage.ts";
import { openStore, type Store } from "../../src/store/store.ts";
import { History } from "../../src/telemetry/history.ts";
import { ReliabilityRecord } from "../../src/telemetry/reliability.ts";
import { Day } from "../../src/telemetry/reliability-days.ts";
import { eventOf, lostRecord, WorkloadRecord } from "../../src/workload/record.ts";
import type { Draw } from "../draw.ts";
import { valid } from "../from-schema.ts";
import { hostileNumber, hostileText, hostileValue, mutated, mutatedText } from "../hostile.ts";
import { ensure, type TargetGroup, target } from "../target.ts";

const NOW = 1_790_000_000_000;
/** Start of a bucket of every step. */
const THEN = Math.floor(NOW / 300_000) * 300_000;

/** What lies on the disk when an agent starts. */
interface Disk {
  records: [key: string, body: string][];
  events: [at: string, body: string][];
  usage: string[];
  history: string[];
  marks: string[];
  owner?: string;
  reliability?: string;
}

const WORD = {
  drain: { maintenance: true, since: "2026-01-01T00:00:00Z" },
  reclaims: [{ gpus: ["GPU-1"], since: "2026-01-01T00:00:00Z", untilAt: NOW + 1000, deadlineAt: NOW + 500 }],
};

function stored(draw: Draw, make: () => unknown): string {
  return draw.any(
    () => JSON.stringify(make()),
    () => JSON.stringify(mutated(draw, make())),
    () => JSON.stringify(mutated(draw, make())),
    () => mutatedText(draw, JSON.stringify(make())),
    () => JSON.stringify(hostileValue(draw)) ?? "",
  );
}

function disk(draw: Draw): Disk {
  const at = () =>
    draw.any(
      () => new Date(NOW).toISOString(),
      () => hostileText(draw).slice(0, 100),
    );
  return {
    records: draw.list(3, (n) => [
      draw.any(
        () => `w${n}#1`,
        () => hostileText(draw).slice(0, 300),
      ),
      stored(draw, () => valid(draw, WorkloadRecord)),
    ]),
    events: draw.list(4, () => [
      at(),
      stored(draw, () =>
        draw.any(
          () => valid(draw, EventBody),
          () => ({ kind: "gap", span: hostileNumber(draw), reason: "r" }),
        ),
      ),
    ]),
    usage: draw.list(2, () => stored(draw, () => valid(draw, UsageEvent))),
    history: draw.list(3, () =>
      stored(draw, () => ({
        host: [10_000, 5, 9],
        "GPU-1": [10_000, 97.5, 100, 0, 0, 0, 4_000, hostileNumber(draw), 415],
      })),
    ),
    marks: draw.list(3, () => stored(draw, () => ({ atMs: NOW, kind: "health", state: "failed", gpus: ["GPU-1"] }))),
    ...(draw.once(2) && { owner: stored(draw, () => WORD) }),
    ...(draw.once(2) && {
      reliability: stored(draw, () => ({
        at: NOW,
        since: NOW - draw.below(1e9),
        seen: { bootId: "b", uptimeMs: 1, wallMs: NOW - draw.below(1e9) },
        days: draw.list(3, () => ({ ...(valid(draw, Day) as object), day: 20_717 - draw.below(30) })),
      })),
    }),
  };
}

function written(path: string, { records, events, usage, history, marks, owner, reliability }: Disk): void {
  // A start of an empty one makes the tables.
  const db = new DatabaseSync(path);
  try {
    db.exec("DELETE FROM records; DELETE FROM events; DELETE FROM settings; DELETE FROM usage");
    db.exec("DELETE FROM history; DELETE FROM history_marks");
    const put = db.prepare("INSERT OR REPLACE INTO records VALUES (?, ?)");
    for (const row of records) put.run(...row);
    const add = db.prepare("INSERT INTO events VALUES (?, ?, ?)");
    for (const [seq, row] of events.entries()) add.run(seq + 1, ...row);
    const use = db.prepare("INSERT INTO usage (workload, generation, ends, body) VALUES ('w', 0, ?, ?)");
    for (const body of usage) use.run(NOW, body);
    const fill = db.prepare("INSERT OR REPLACE INTO history VALUES (?, ?, ?)");
    for (const [at, body] of history.entries()) fill.run([10_000, 60_000, 300_000][at % 3] ?? 0, THEN, body);
    const mark = db.prepare("INSERT INTO history_marks (at, body) VALUES (?, ?)");
    for (const body of marks) mark.run(NOW, body);
    db.prepare("UPDATE position SET newest = ?, acked = 0, resumed = 1").run(events.length);
    const set = db.prepare("INSERT INTO settings VALUES (?, ?)");
    for (const [key, value] of Object.entries({ owner, reliability })) if (value !== undefined) set.run(key, value);
  } finally {
    db.close();
  }
}

/** What a start does with what it finds, up to what is told of it. */
async function started(path: string, of: Disk): Promise<void> {
  written(path, of);
  const fold = (records: readonly UsageEvent[]) => signUsage(foldUsage(records), () => Buffer.alloc(64));
  // So few events are kept that each start has to make room.
  await using store = openStore({ path, now: () => NOW, limits: { events: 3, bytes: 100_000 }, fold });
  for (const event of store.after(0, 100, 1e6)) {
    ensure(DurableEvent.safeParse(event).success, () => `no event of the wire: ${JSON.stringify(event).slice(0, 500)}`);
  }
  store.ledger.last("w", 0);
  const used = store.ledger.sum("w", 0);
  for (const figure of Object.values(used)) ensure(!Number.isNaN(figure), () => `used: ${JSON.stringify(used)}`);
  JSON.stringify([...store.ledger.since(0)]);
  pastOf(store);
  const records = store.rows().map(({ key, body }) => {
    const record = WorkloadRecord.safeParse(body);
    const [, id = "", generation] = /^(.+)#(\d+)$/.exec(key) ?? [];
    return record.success
      ? record.data
      : lostRecord({ id, generation: Number(generation) }, { now: NOW, message: "lost" });
  });
  const known = records.filter((record) => record !== undefined);
  store.commit({ put: [], remove: [], events: known.map((record) => eventOf(record)) });
  for (const event of store.after(0, 100, 1e6))
    ensure(DurableEvent.safeParse(event).success, () => `told wrongly: ${JSON.stringify(event).slice(0, 500)}`);

  const log = {
    info: () => undefined,
    warn: () => undefined,
    error: (_: object, message: string) => ensure(false, message),
  };
  using register = new Register({
    records: () => [],
    preempt: () => 0,
    withdraw: () => 0,
    boards: () => [],
    tell: () => undefined,
    changed: () => undefined,
    now: () => NOW,
    steady: () => NOW,
    log,
  });
  const memory = { get: () => store.get("owner"), set: (text: string | undefined) => store.set("owner", text) };
  using owner: Owner = createOwner({
    memory,
    raise: (claims) => register.raise("owner", claims),
    now: () => NOW,
    steady: () => NOW,
  });
  using reliability = new ReliabilityRecord({
    memory: { get: () => store.get("reliability"), set: (text) => store.set("reliability", text) },
    now: () => NOW,
    uptime: () => 1,
    bootId: "b",
    changed: () => undefined,
    log,
  });
  reliability.started();
  const { figures } = reliability;
  ensure(
    figures === undefined || Reliability.safeParse(figures).success,
    () => `no reliability of the wire: ${JSON.stringify(figures)}`,
  );
  const snapshot = describe({
    ...{
      now: NOW,
      steady: NOW,
      link: undefined,
      unackedEvents: 0,
      gpus: [],
      holds: register.holds(),
      problems: [...store.problems],
      sample: undefined,
      reliability: figures,
      page: undefined,
    },
    node: {
      id: "n",
      name: "n",
      labels: {},
      version: "0",
      pid: 1,
      startedAt: NOW,
      state: owner.isForMaintenance ? "draining" : "available",
    },
    host: { architecture: "amd64", cpus: 1, memoryMiB: 1 },
    engine: { kind: "docker", available: false },
    workloads: known.map((record) => ({ record, pull: undefined })),
  });
  JSON.stringify(snapshot);
}

/** Whatever lies there, the past goes on, and is told in numbers. */
function pastOf(store: Store): void {
  const quiet = { debug: (_: object, message: string) => ensure(false, message) };
  using history = new History({ memory: store.history, now: () => NOW, log: quiet });
  for (const atMs of [THEN, THEN + 1000]) {
    history.sampled({
      at: new Date(atMs).toISOString(),
      gpus: [{ uuid: "GPU-1", utilizationPercent: 50 }],
      host: { cpuPercent: 1 },
    });
  }
  for (const hours of [24, 1]) {
    const { series } = describeHistory(history.past(hours));
    for (const { utilizationPercent, powerWatts } of Object.values(series)) {
      for (const value of [...utilizationPercent, ...powerWatts])
        ensure(value === null || typeof value === "number", () => `no figure: ${String(value)}`);
    }
    history.save();
  }
}

/** What a coordinator and the node do to the log, in any order. */
type Step = { append: number } | { ack: number } | { resume: number };

/** The log stays one that can be told: numbered without a hole, in numbers that JSON carries. */
async function numbered(path: string, steps: readonly Step[]): Promise<void> {
  written(path, { records: [], events: [], usage: [], history: [], marks: [] });
  await using store = openStore({ path, now: () => NOW, limits: { events: 20, bytes: 100_000 } });
  const event: EventBody = { kind: "node", state: "started" };
  for (const step of steps) {
    if ("append" in step) store.append(Array.from({ length: step.append }, () => event));
    else if ("resume" in step) store.resume(step.resume);
    else if (step.ack <= store.newest) store.acked(step.ack);
    let next = store.oldest;
    for (const held of store.after(store.oldest - 1, 1000, 1e6)) {
      ensure(DurableEvent.safeParse(held).success, () => `no event of the wire: ${JSON.stringify(held)}`);
      ensure(held.seq === next, `event ${held.seq} where ${next} should be`);
      next = held.kind === "gap" ? held.toSeq + 1 : held.seq + 1;
    }
    ensure(store.newest === 0 || next === store.newest + 1, `the log ends at ${next - 1}, it says ${store.newest}`);
  }
}

function acked(draw: Draw): number {
  return draw.any(
    () => draw.below(40),
    () => draw.of([1e6, MAX_RESUMED_EVENT]),
  );
}

export async function storeGroup(): Promise<TargetGroup> {
  const folder = mkdtempSync(join(tmpdir(), "gpunode-fuzz-"));
  const path = join(folder, "gpunode.db");
  await openStore({ path })[Symbol.asyncDispose]();
  return {
    targets: [
      target<Step[]>({
        name: "the event log under acks and resumptions",
        inputs: 1500,
        make: (draw) =>
          draw.list(8, () =>
            draw.any<Step>(
              () => ({ append: draw.below(12) }),
              () => ({ ack: acked(draw) }),
              () => ({ resume: acked(draw) }),
            ),
          ),
        check: (steps) => numbered(path, steps),
      }),
      target<Disk>({
        name: "a start on rows that hold anything",
        inputs: 3000,
        make: disk,
        check: (of) => started(path, of),
      }),
    ],
    async [Symbol.asyncDispose]() {
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
