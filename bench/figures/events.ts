import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EventBody } from "../../src/protocol/event.ts";
import { openDatabase, transaction } from "../../src/store/sqlite.ts";
import { openStore } from "../../src/store/store.ts";
import { asDaemon, measuredAsDaemon } from "../lib/as-daemon.ts";
import { alternating, type Bench, type Measured } from "../lib/figure.ts";

const ROUNDS = 9;
/** Events in one commit, as when many workloads move at once. */
const BATCH = 100;
const COMMITS = 100;

/** Durable events beside the same rows written by bare SQLite, with the same pragmas: a commit is on the disk when it returns. */
export const events: Bench = {
  key: "events",
  figures: [`durable events, ${BATCH} in a commit`, "durable events, one in a commit"],
  quick: true,
  async run() {
    const measured = async (figure: string, batch: number): Promise<Measured> => {
      const ours = () => asDaemon(import.meta.url, "stored", batch);
      const theirs = () => asDaemon(import.meta.url, "inserted", batch);
      const rounds = await alternating({ rounds: ROUNDS }, ours, theirs);
      return { figure, unit: "events/s", baseline: "bare SQLite inserts, same pragmas", rounds, moreIsBetter: true };
    };
    return [
      { ...(await measured(this.figures[0] ?? "", BATCH)), reach: { ratioAtLeast: 0.7 } },
      await measured(this.figures[1] ?? "", 1),
    ];
  },
};

/** Events a second through the daemon's own store. */
async function stored(batch: number): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
  const store = openStore({ path: join(dir, "ours.db") });
  const bodies = bodiesOf(batch);
  const perSecond = rate(batch, () => store.append(bodies));
  await store[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
  return perSecond;
}

/** Rows a second of the same texts. */
function inserted(batch: number): number {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
  const db = openDatabase(join(dir, "bare.db"), [
    "CREATE TABLE events (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, body TEXT NOT NULL) STRICT",
  ]);
  const insert = db.prepare("INSERT INTO events (seq, at, body) VALUES (?, ?, ?)");
  const texts = bodiesOf(batch).map((body) => JSON.stringify(body));
  let seq = 0;
  const perSecond = rate(batch, () =>
    transaction(db, () => {
      const at = new Date().toISOString();
      for (const text of texts) insert.run(++seq, at, text);
    }),
  );
  db.close();
  rmSync(dir, { recursive: true, force: true });
  return perSecond;
}

function bodiesOf(batch: number): EventBody[] {
  return Array.from({ length: batch }, (_, n) => ({
    kind: "workload",
    workload: `bench-${n}`,
    generation: 1,
    state: "running",
    message: "the container runs",
  }));
}

/** Of a first tenth nothing counts. */
function rate(batch: number, commit: () => void): number {
  const commits = batch === 1 ? COMMITS * 5 : COMMITS;
  for (let done = 0; done < commits / 10; done += 1) commit();
  const began = performance.now();
  for (let done = 0; done < commits; done += 1) commit();
  return (commits * batch) / ((performance.now() - began) / 1000);
}

await measuredAsDaemon(import.meta.url, { stored, inserted });
