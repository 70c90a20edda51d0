import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, it, onTestFinished } from "vitest";
import type { UsageEvent } from "../../src/protocol/event.ts";
import { openStore } from "../../src/store/store.ts";

function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-ledger-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function open(dir: string, now = () => Date.parse("2026-02-01T00:00:00.000Z")) {
  const store = openStore({ path: join(dir, "state.db"), now });
  onTestFinished(() => store[Symbol.asyncDispose]());
  return store;
}

function usage(minute: number, changes: Partial<UsageEvent> = {}): UsageEvent {
  const at = (n: number) => new Date(Date.parse("2026-01-31T00:00:00.000Z") + n * 60_000).toISOString();
  return {
    kind: "usage",
    workload: "w",
    generation: 1,
    from: at(minute),
    to: at(minute + 1),
    gpus: ["GPU-0"],
    gpuSeconds: 60,
    cpuSeconds: 1.5,
    networkRxBytes: 10,
    final: false,
    signature: "s",
    ...changes,
  };
}

it("keeps what events told of usage, also when they are acked and after a restart", async () => {
  const dir = scratch();
  const store = open(dir);
  const events = store.append([usage(0), { kind: "node", state: "started" }, usage(1), usage(0, { generation: 2 })]);
  store.acked(events.at(-1)?.seq ?? 0);
  await store[Symbol.asyncDispose]();
  const { ledger } = open(dir);
  expect(ledger.last("w", 1)).toEqual(usage(1));
  expect(ledger.last("w", 2)).toEqual(usage(0, { generation: 2 }));
  expect(ledger.last("other", 1)).toBeUndefined();
  expect(ledger.sum("w", 1)).toEqual({ cpuSeconds: 3, networkRxBytes: 20, networkTxBytes: 0 });
  expect([...ledger.since(0)]).toHaveLength(3);
  expect([...ledger.since(Date.parse(usage(1).from))]).toEqual([usage(1)]);
});

it("keeps nothing of a commit that failed", () => {
  const store = open(scratch());
  const unwritable = {
    toJSON: () => {
      throw new Error("no");
    },
  };
  expect(() => store.commit({ put: [{ key: "k", body: unwritable }], remove: [], events: [usage(0)] })).toThrow();
  expect([...store.ledger.since(0)]).toEqual([]);
});

it("lets go of what is older than 400 days, and reads on over many pages", () => {
  let now = Date.parse("2026-02-01T00:00:00.000Z");
  const store = open(scratch(), () => now);
  store.append(Array.from({ length: 1200 }, (_, minute) => usage(minute)));
  expect([...store.ledger.since(0)]).toHaveLength(1200);
  now += 401 * 86_400_000;
  const at = new Date(now).toISOString();
  store.append(Array.from({ length: 500 }, () => usage(0, { from: at, to: at, gpuSeconds: 0 })));
  expect([...store.ledger.since(0)]).toHaveLength(500);
});

it("comes to a database of the version before", async () => {
  const dir = scratch();
  await open(dir)[Symbol.asyncDispose]();
  const db = new DatabaseSync(join(dir, "state.db"));
  db.exec(
    "DROP TABLE usage; DROP TABLE history; DROP TABLE history_spans; DROP TABLE history_marks; PRAGMA user_version = 1",
  );
  db.close();
  const store = open(dir);
  store.append([usage(0)]);
  expect(store.ledger.last("w", 1)).toEqual(usage(0));
});

it("sums what is no more than a whole number can hold, and passes rows over that a damaged disk has left", async () => {
  const dir = scratch();
  const store = open(dir);
  store.append([
    usage(0, { networkRxBytes: Number.MAX_SAFE_INTEGER }),
    usage(1, { networkRxBytes: Number.MAX_SAFE_INTEGER }),
    usage(2),
  ]);
  await store[Symbol.asyncDispose]();
  const db = new DatabaseSync(join(dir, "state.db"));
  db.exec("UPDATE usage SET body = '{half' WHERE position = 3");
  db.close();
  const { ledger } = open(dir);
  expect(ledger.sum("w", 1)).toMatchObject({ cpuSeconds: 3, networkRxBytes: 2 * Number.MAX_SAFE_INTEGER });
  expect(ledger.last("w", 1)).toBeUndefined();
  expect([...ledger.since(0)]).toHaveLength(3);
});
