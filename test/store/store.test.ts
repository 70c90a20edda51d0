import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, it, onTestFinished } from "vitest";
import type { DurableEvent, EventBody } from "../../src/protocol/event.ts";
import { openStore, type Store } from "../../src/store/store.ts";

const NOW = Date.parse("2026-01-31T12:00:00.000Z");

function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-store-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function open(dir = scratch(), log?: Parameters<typeof openStore>[0]["log"]): Store {
  const store = openStore({ path: join(dir, "state.db"), now: () => NOW, ...(log !== undefined && { log }) });
  onTestFinished(() => store[Symbol.asyncDispose]());
  return store;
}

function started(reason: string): EventBody {
  return { kind: "node", state: "started", reason };
}

function many(count: number): EventBody[] {
  return Array.from({ length: count }, (_, index) => started(`e${index + 1}`));
}

function seqs(events: readonly DurableEvent[]): number[] {
  return events.map(({ seq }) => seq);
}

describe("records", () => {
  it("are on the disk with their events when commit returns", async () => {
    const dir = scratch();
    const store = open(dir);
    const body = { id: "w", state: "running" };
    const events = store.commit({ put: [{ key: "w#1", body }], remove: [], events: [started("a")] });
    expect(events).toEqual([{ seq: 1, at: "2026-01-31T12:00:00.000Z", kind: "node", state: "started", reason: "a" }]);
    await store[Symbol.asyncDispose]();

    const again = open(dir);
    expect(again.rows()).toEqual([{ key: "w#1", body }]);
    expect(again.after(0, 10, 1000)).toEqual(events);
  });

  it("are replaced and removed by key", () => {
    const store = open();
    store.commit({
      put: [
        { key: "a", body: 1 },
        { key: "b", body: 2 },
      ],
      remove: [],
      events: [],
    });
    store.commit({ put: [{ key: "b", body: 3 }], remove: ["a"], events: [] });
    expect(store.rows()).toEqual([{ key: "b", body: 3 }]);
  });

  it("all go in or none: a failure in the middle leaves no row, no event and no used-up number", () => {
    const store = open();
    const told: DurableEvent[] = [];
    store.onAppend((events) => told.push(...events));
    const circular: Record<string, unknown> = {};
    circular.self = 1n;
    expect(() =>
      store.commit({
        put: [
          { key: "a", body: 1 },
          { key: "b", body: circular },
        ],
        remove: [],
        events: [started("lost")],
      }),
    ).toThrow();
    expect(store.rows()).toEqual([]);
    expect(store.newest).toBe(0);
    expect(told).toEqual([]);
    expect(seqs(store.append([started("next")]))).toEqual([1]);
  });

  it("survive a process that is killed right after the commit", () => {
    const dir = scratch();
    const script = `
      import { openStore } from ${JSON.stringify(resolve(import.meta.dirname, "../../src/store/store.ts"))};
      const store = openStore({ path: ${JSON.stringify(join(dir, "state.db"))} });
      store.commit({ put: [{ key: "w#1", body: { pid: process.pid } }], remove: [], events: [{ kind: "node", state: "started" }] });
      process.kill(process.pid, "SIGKILL");`;
    const child = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
    expect(child.signal, child.stderr).toBe("SIGKILL");
    const store = open(dir);
    expect(store.rows()).toEqual([{ key: "w#1", body: { pid: child.pid } }]);
    expect(store.newest).toBe(1);
  });
});

describe("secrets", () => {
  it.each([
    { secretEnv: { TOKEN: "canary-7c1e" } },
    { spec: { secretEnv: {} } },
    { spec: { registryAuth: { username: "u", password: "canary-7c1e" } } },
    { list: [{ registryAuth: { identityToken: "canary-7c1e" } }] },
  ])("are refused: %j", (body) => {
    const dir = scratch();
    const store = open(dir);
    expect(() => store.commit({ put: [{ key: "w", body }], remove: [], events: [started("x")] })).toThrow(
      /never stored/,
    );
    expect(store.rows()).toEqual([]);
    for (const file of readdirSync(dir)) expect(readFileSync(join(dir, file)).includes("canary-7c1e")).toBe(false);
  });

  it("are not suspected in the names of a workload's own variables", () => {
    const store = open();
    store.commit({
      put: [{ key: "w", body: { spec: { env: { registryAuth: "off", secretEnv: "1" } } } }],
      remove: [],
      events: [],
    });
    expect(store.rows()).toHaveLength(1);
  });
});

describe("event log", () => {
  it("numbers from 1 without a hole and says what it holds", () => {
    const store = open();
    expect([store.oldest, store.newest]).toEqual([0, 0]);
    expect(seqs(store.append(many(3)))).toEqual([1, 2, 3]);
    expect(seqs(store.append(many(2)))).toEqual([4, 5]);
    expect([store.oldest, store.newest]).toEqual([1, 5]);
    store.acked(3);
    expect([store.oldest, store.newest]).toEqual([4, 5]);
    expect(seqs(store.after(0, 10, 10_000))).toEqual([4, 5]);
    store.acked(2);
    expect(store.oldest).toBe(4);
    expect(() => store.acked(6)).toThrow(RangeError);
  });

  it("never gives a number twice, also when all was acked and the file was reopened", async () => {
    const dir = scratch();
    const store = open(dir);
    store.append(many(4));
    store.acked(4);
    expect([store.oldest, store.newest]).toEqual([5, 4]);
    await store[Symbol.asyncDispose]();
    const again = open(dir);
    expect([again.oldest, again.newest]).toEqual([5, 4]);
    expect(seqs(again.append(many(1)))).toEqual([5]);
  });

  it("gives batches by count and by bytes, but one event at least", () => {
    const store = open();
    store.append(many(100));
    expect(seqs(store.after(10, 3, 1_000_000))).toEqual([11, 12, 13]);
    const small = store.after(0, 100, 300);
    expect(small.length).toBeGreaterThan(1);
    expect(Buffer.byteLength(JSON.stringify(small))).toBeLessThanOrEqual(300 + 2);
    expect(seqs(store.after(0, 100, 1))).toEqual([1]);
    expect(store.after(100, 10, 1000)).toEqual([]);
  });

  it("cuts a message that would not fit into a frame, between characters", () => {
    const store = open();
    const [event] = store.append([
      { kind: "workload", workload: "w", generation: 1, state: "failed", message: `x${"😀".repeat(1_000_000)}` },
    ]);
    if (event?.kind !== "workload") throw new Error("not the event that was written");
    expect(event.message?.length).toBeLessThan(5000);
    expect(event.message?.isWellFormed()).toBe(true);
    expect(store.after(0, 1, 1)).toEqual([event]);
  });

  it("tells listeners after the commit, and a failing one harms nobody", () => {
    const logged: string[] = [];
    const note = (_fields: object, message: string) => void logged.push(message);
    const store = open(scratch(), { debug: note, info: note, warn: note, error: note });
    const seen: number[][] = [];
    store.onAppend(() => {
      throw new Error("a bad listener");
    });
    const stop = store.onAppend((events) => seen.push([...seqs(events), store.newest]));
    store.append(many(2));
    store.commit({ put: [], remove: ["nothing"], events: [] });
    stop();
    store.append(many(1));
    expect(seen).toEqual([[1, 2, 2]]);
    expect(logged).toHaveLength(2);
  });

  it("tells an event that cannot be read as a gap of its own", async () => {
    const dir = scratch();
    const store = open(dir);
    store.append(many(3));
    await store[Symbol.asyncDispose]();
    const db = new DatabaseSync(join(dir, "state.db"));
    db.exec(`UPDATE events SET body = '{"kind":"of a later version"}' WHERE seq = 2`);
    db.close();
    expect(
      open(dir)
        .after(0, 10, 10_000)
        .map(({ seq, kind }) => [seq, kind]),
    ).toEqual([
      [1, "node"],
      [2, "gap"],
      [3, "node"],
    ]);
  });

  it("says when an event is with the coordinator, or that time is up", async () => {
    const store = open();
    store.append(many(3));
    const first = store.told(2, 5000);
    store.acked(1);
    store.acked(3);
    expect(await first).toBe(true);
    expect(await store.told(2, 0)).toBe(true);
    const [event] = store.append(many(1));
    const before = Date.now();
    expect(await store.told(event?.seq ?? 0, 30)).toBe(false);
    expect(Date.now() - before).toBeGreaterThanOrEqual(25);
    const leaving = store.told(event?.seq ?? 0, 60_000);
    await store[Symbol.asyncDispose]();
    expect(await leaving).toBe(false);
  });
});

describe("resuming with a coordinator", () => {
  it("lets go of what the coordinator holds", () => {
    const store = open();
    store.append(many(5));
    store.resume(0);
    expect(store.oldest).toBe(1);
    store.resume(3);
    expect(seqs(store.after(0, 10, 10_000))).toEqual([4, 5]);
  });

  it("goes on above what the coordinator holds when the disk was lost, and renumbers what waits", async () => {
    const dir = scratch();
    const store = open(dir);
    store.append(many(3));
    const told = store.told(3, 5000);
    store.resume(57);
    expect([store.oldest, store.newest]).toEqual([58, 60]);
    expect(store.after(57, 10, 10_000).map((event) => [event.seq, event.kind === "node" && event.reason])).toEqual([
      [58, "e1"],
      [59, "e2"],
      [60, "e3"],
    ]);
    store.acked(60);
    expect(await told).toBe(true);
    await store[Symbol.asyncDispose]();
    expect(seqs(open(dir).append(many(1)))).toEqual([61]);
  });

  it("knows a lost disk also where the new log has grown longer than the old one was", () => {
    const store = open();
    store.append(many(10));
    store.resume(4);
    expect(seqs(store.after(0, 100, 10_000))).toEqual([5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    store.resume(6);
    expect(seqs(store.after(0, 100, 10_000))).toEqual([7, 8, 9, 10, 11, 12, 13, 14]);
  });

  it("goes on above it with an empty log, too", () => {
    const store = open();
    store.resume(57);
    expect([store.oldest, store.newest]).toEqual([58, 57]);
    expect(seqs(store.append(many(1)))).toEqual([58]);
  });

  it("keeps its place where the coordinator has forgotten", () => {
    const store = open();
    store.append(many(5));
    store.resume(0);
    store.acked(3);
    store.resume(0);
    expect([store.oldest, store.newest]).toEqual([4, 5]);
  });
});

describe("settings", () => {
  it("last, and can be taken back", async () => {
    const dir = scratch();
    const store = open(dir);
    expect(store.get("draining")).toBeUndefined();
    store.set("draining", "yes");
    store.set("draining", "no");
    await store[Symbol.asyncDispose]();
    const again = open(dir);
    expect(again.get("draining")).toBe("no");
    again.set("draining", undefined);
    expect(again.get("draining")).toBeUndefined();
  });
});

describe("the file", () => {
  it("is for its owner alone", () => {
    const dir = join(scratch(), "made/by/us");
    const store = open(dir);
    store.append(many(1));
    for (const file of readdirSync(dir)) expect([file, statSync(join(dir, file)).mode & 0o777]).toEqual([file, 0o600]);
  });

  it("is one agent's: a second is told so", () => {
    const dir = scratch();
    open(dir);
    expect(() => openStore({ path: join(dir, "state.db") })).toThrow(/in use by another gpunode.*state_dir/);
  });

  it.each([
    ["text", (path: string) => writeFileSync(path, "this was never a database, ".repeat(1000))],
    [
      "a page of rubbish",
      (path: string) => {
        const bytes = readFileSync(path);
        bytes.fill(0x5a, 4096, 8192);
        writeFileSync(path, bytes);
      },
    ],
    ["half a file", (path: string) => writeFileSync(path, readFileSync(path).subarray(0, 5000))],
  ])("is kept aside when it holds %s, and a new one is started", async (_what, damage) => {
    const dir = scratch();
    const path = join(dir, "state.db");
    const store = open(dir);
    store.commit({ put: [{ key: "w", body: 1 }], remove: [], events: many(5) });
    await store[Symbol.asyncDispose]();
    damage(path);
    const damaged = readFileSync(path);

    const logged: string[] = [];
    const note = (_fields: object, message: string) => void logged.push(message);
    const again = open(dir, { debug: note, info: note, warn: note, error: note });
    expect(again.rows()).toEqual([]);
    expect(again.problems).toMatchObject([{ code: "state_lost", message: expect.stringContaining(".corrupt-") }]);
    expect(logged).toHaveLength(1);
    const kept = readdirSync(dir).find((name) => name.includes(".corrupt-")) ?? "";
    expect(kept).toBe("state.db.corrupt-2026-01-31T12-00-00.000Z");
    expect(readFileSync(join(dir, kept)).equals(damaged)).toBe(true);
    expect(seqs(again.append(many(1)))).toEqual([1]);
  });

  it("is left alone when a newer gpunode wrote it", async () => {
    const dir = scratch();
    const store = open(dir);
    await store[Symbol.asyncDispose]();
    const db = new DatabaseSync(join(dir, "state.db"));
    db.exec("PRAGMA user_version = 99");
    db.close();
    expect(() => openStore({ path: join(dir, "state.db") })).toThrow(/newer gpunode/);
    expect(readdirSync(dir).filter((name) => name.includes("corrupt"))).toEqual([]);
  });

  it("is not made up where it cannot be made", () => {
    const dir = scratch();
    writeFileSync(join(dir, "file"), "");
    expect(() => openStore({ path: join(dir, "file", "state.db") })).toThrow(/ENOTDIR|EEXIST/);
    expect(() => openStore({ path: dir })).toThrow(/EISDIR/);
  });
});

it("writes that begin to fail, and succeed again, are told once each", () => {
  let told = 0;
  const store = openStore({ path: join(scratch(), "state.db"), onProblems: () => void told++ });
  onTestFinished(() => store[Symbol.asyncDispose]());
  // No row can hold it, as on a disk that takes nothing.
  const impossible = () => store.commit({ put: [{ key: "w", body: 1n }], remove: [], events: [] });
  expect(impossible).toThrow();
  expect(impossible).toThrow();
  expect([told, store.problems.map(({ code }) => code)]).toEqual([1, ["state_refused"]]);
  store.set("again", "yes");
  store.set("again", "no");
  expect([told, store.problems]).toEqual([2, []]);
});
