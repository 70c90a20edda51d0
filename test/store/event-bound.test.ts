import { generateKeyPairSync, sign } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, it, onTestFinished } from "vitest";
import { DurableEvent, type EventBody, type UsageEvent } from "../../src/protocol/event.ts";
import { type ChainLink, chainProblem, foldUsage, signUsage, verifyUsage } from "../../src/protocol/usage.ts";
import { openStore, type Store } from "../../src/store/store.ts";

const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const signer = (bytes: Uint8Array) => sign(null, bytes, privateKey);
const T0 = Date.parse("2026-01-31T00:00:00.000Z");

function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-bound-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function open(limits: { events?: number; bytes?: number }, dir = scratch()): Store {
  const store = openStore({
    path: join(dir, "state.db"),
    now: () => T0,
    limits: { events: 1_000_000, bytes: 1e9, ...limits },
    fold: (records) => signUsage(foldUsage(records), signer),
  });
  onTestFinished(() => store[Symbol.asyncDispose]());
  return store;
}

const at = (minute: number) => new Date(T0 + minute * 60_000).toISOString();
const usage = (workload: string, minute: number, final = false): UsageEvent =>
  signUsage(
    {
      kind: "usage",
      workload,
      generation: 1,
      from: at(minute),
      to: at(minute + 1),
      gpus: ["GPU-0"],
      gpuSeconds: 60,
      energyJoules: 100,
      gpuUtilizationMeanPercent: minute,
      observedSeconds: 60,
      vramPeakMiB: minute,
      final,
    },
    signer,
  );
const state = (workload: string, what: "running" | "succeeded"): EventBody => ({
  kind: "workload",
  workload,
  generation: 1,
  state: what,
});
const pressure: EventBody = {
  kind: "pressure",
  resource: "disk",
  level: "elevated",
  valuePercent: 91,
  thresholdPercent: 90,
};

/** All that a coordinator would be sent, after checking that nothing is missing without a word. */
function told(store: Store, from = store.oldest): DurableEvent[] {
  const events = store.after(from - 1, 1_000_000, 1e9);
  let next = from;
  for (const event of events) {
    expect(event.seq).toBe(next);
    next = (event.kind === "gap" ? event.toSeq : event.seq) + 1;
  }
  expect(next).toBe(store.newest + 1);
  return events;
}

const kinds = (events: readonly DurableEvent[]) => events.map(({ kind }) => kind);

describe("a log that no coordinator takes", () => {
  it("folds interim usage first: the bill stays whole, and every record that goes is named", () => {
    const store = open({ events: 50 });
    for (let minute = 0; minute < 200; minute++) store.append([usage("a", minute), usage("b", minute)]);
    store.append([usage("a", 200, true), state("a", "succeeded")]);
    const events = told(store);
    expect(events.length).toBeLessThanOrEqual(102);
    for (const workload of ["a", "b"]) {
      const records = events.flatMap((event) => (event.kind === "usage" && event.workload === workload ? [event] : []));
      let before: ChainLink | undefined;
      for (const record of records) {
        expect(verifyUsage(record, publicKey)).toBe(true);
        expect(chainProblem(record, before)).toBeUndefined();
        before = record;
      }
      const minutes = workload === "a" ? 201 : 200;
      expect(records.reduce((sum, { gpuSeconds }) => sum + gpuSeconds, 0)).toBe(60 * minutes);
      expect(records.reduce((sum, { energyJoules = 0 }) => sum + energyJoules, 0)).toBe(100 * minutes);
      expect(Math.max(...records.map(({ vramPeakMiB = 0 }) => vramPeakMiB))).toBe(minutes - 1);
      expect(records[0]?.from).toBe(at(0));
    }
    const reasons = events.flatMap((event) => (event.kind === "gap" ? [event.reason] : []));
    expect(reasons.join()).toMatch(/folded into the usage record of event \d+/);
    // The ledger keeps each of them.
    expect([...store.ledger.since(0)]).toHaveLength(401);
  });

  it("lets go of what tells least, and of ends last of all", () => {
    const store = open({ events: 100 });
    for (let n = 0; n < 60; n++) store.append([pressure, state(`w${n}`, "running"), state(`w${n}`, "succeeded")]);
    const events = told(store);
    const ends = events.flatMap((event) => (event.kind === "workload" && event.state === "succeeded" ? [event] : []));
    expect(ends).toHaveLength(60);
    expect(kinds(events).filter((kind) => kind === "pressure").length).toBeLessThan(40);
    expect(events.find((event) => event.kind === "gap")).toMatchObject({ reason: expect.stringContaining("no room") });
  });

  it("is bounded by bytes too", () => {
    const store = open({ bytes: 20_000 });
    for (let n = 0; n < 500; n++) {
      store.append([{ kind: "node", state: "started", reason: "x".repeat(200) }, state(`w${n}`, "succeeded")]);
    }
    const events = told(store);
    expect(JSON.stringify(events).length).toBeLessThan(60_000);
    expect(events.filter(({ kind }) => kind === "workload").length).toBeGreaterThan(50);
  });

  it("stays sound over a restart, an ack in the middle and a coordinator that was ahead", async () => {
    const dir = scratch();
    const store = open({ events: 40 }, dir);
    for (let n = 0; n < 100; n++) store.append([pressure, state(`w${n}`, "succeeded")]);
    await store[Symbol.asyncDispose]();
    const again = open({ events: 40 }, dir);
    again.resume(0);
    const before = told(again);
    const middle = before[10];
    again.acked(middle?.kind === "gap" ? middle.toSeq : (middle?.seq ?? 0));
    expect(told(again)).toEqual(before.slice(11));
    // A coordinator that knows more than this log ever told it: the numbers move on, the gaps with them.
    await again[Symbol.asyncDispose]();
    const lost = open({ events: 40 }, dir);
    lost.resume(lost.newest + 1000);
    expect(kinds(told(lost))).toEqual(kinds(before.slice(11)));
  });

  it("folds nothing that a coordinator may hold already", () => {
    const store = open({ events: 50 });
    for (let minute = 0; minute < 30; minute++) store.append([usage("a", minute)]);
    // Sent, and the ack is lost.
    const sent = store.after(0, 100, 1e9);
    for (let minute = 30; minute < 90; minute++) store.append([usage("a", minute)]);
    const events = told(store, 1);
    const records = events.flatMap((event) => (event.kind === "usage" ? [event] : []));
    const lastSent = sent.at(-1) as UsageEvent & { seq: number };
    expect(records.filter(({ seq }) => seq > lastSent.seq)[0]?.from).toBe(lastSent.to);
  });
});

it("an ack in the middle of a gap leaves the rest of it", async () => {
  const dir = scratch();
  const store = open({ events: 10 }, dir);
  for (let n = 0; n < 12; n += 1) store.append([{ kind: "node", state: "started" }]);
  const [gap] = store.after(0, 1, 1e6);
  if (gap?.kind !== "gap" || gap.toSeq < 2) throw new Error("there is no gap of several events");
  store.acked(1);
  expect(store.after(1, 1, 1e6)).toMatchObject([
    { seq: 2, kind: "gap", fromSeq: 2, toSeq: gap.toSeq, reason: gap.reason },
  ]);
  await store[Symbol.asyncDispose]();
  expect(open({}, dir).oldest).toBe(2);
});

describe("rows that a damaged disk has left", () => {
  const rows = [
    "{half a row",
    "null",
    '{"kind":"gap","span":1e18,"reason":"r"}',
    '{"kind":"gap","span":0,"reason":{"toString":1}}',
    '{"kind":"gap","span":"many"}',
  ];

  it.each(rows)("%s is told as one gap, and does not keep the log from making room", async (body) => {
    const dir = scratch();
    const before = open({}, dir);
    before.append([
      { kind: "node", state: "started" },
      { kind: "node", state: "started" },
    ]);
    await before[Symbol.asyncDispose]();
    const db = new DatabaseSync(join(dir, "state.db"));
    db.prepare("UPDATE events SET body = ?, at = 'x' WHERE seq = 1").run(body);
    db.close();
    const store = open({ events: 2 }, dir);
    expect(store.after(0, 10, 1e6)).toMatchObject([
      { seq: 1, kind: "gap", fromSeq: 1, toSeq: 1, at: "1970-01-01T00:00:00.000Z" },
      { seq: 2, kind: "node" },
    ]);
    for (let n = 0; n < 5; n += 1) store.append([{ kind: "node", state: "draining" }]);
    let next = 1;
    for (const event of store.after(0, 100, 1e6)) {
      expect(DurableEvent.safeParse(event).success, JSON.stringify(event)).toBe(true);
      expect(event.seq).toBe(next);
      next = event.kind === "gap" ? event.toSeq + 1 : event.seq + 1;
    }
    expect(next).toBe(store.newest + 1);
  });
});
