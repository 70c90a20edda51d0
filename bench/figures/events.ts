import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EventBody } from "../../src/protocol/event.ts";
import { openDatabase, transaction } from "../../src/store/sqlite.ts";
import { openStore } from "../../src/store/store.ts";
import { alternating, type Bench } from "../lib/figure.ts";

const ROUNDS = 9;
/** Events in one commit, as when many workloads move at once. */
const BATCH = 100;
const BATCHES = 100;

const event = (n: number): EventBody => ({
  kind: "workload",
  workload: `bench-${n}`,
  generation: 1,
  state: "running",
  message: "the container runs",
});

/** Durable events beside the same rows written by bare SQLite, with the same pragmas: a commit is on the disk when it returns. */
export const events: Bench = {
  key: "events",
  figures: [`durable events, ${BATCH} in a commit`, "durable events, one in a commit"],
  quick: true,
  async run() {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-bench-"));
    const store = openStore({ path: join(dir, "ours.db") });
    const bare = openDatabase(join(dir, "bare.db"), [
      "CREATE TABLE events (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, body TEXT NOT NULL) STRICT",
    ]);
    try {
      const insert = bare.prepare("INSERT INTO events (seq, at, body) VALUES (?, ?, ?)");
      const bodies = Array.from({ length: BATCH }, (_, n) => event(n));
      const texts = bodies.map((body) => JSON.stringify(body));
      let seq = 0;
      const measured = async (figure: string, batch: number) => {
        const commits = batch === 1 ? BATCHES * 5 : BATCHES;
        const ours = () => {
          const perSecond = rate(commits, batch, () => store.append(bodies.slice(0, batch)));
          store.acked(store.newest);
          return perSecond;
        };
        const theirs = () => {
          const perSecond = rate(commits, batch, () =>
            transaction(bare, () => {
              const at = new Date().toISOString();
              for (let n = 0; n < batch; n += 1) insert.run(++seq, at, texts[n] ?? "");
            }),
          );
          bare.exec("DELETE FROM events");
          return perSecond;
        };
        const rounds = await alternating({ rounds: ROUNDS }, ours, theirs);
        return { figure, unit: "events/s", baseline: "bare SQLite inserts, same pragmas", rounds };
      };
      return [
        { ...(await measured(this.figures[0] ?? "", BATCH)), reach: { ratioAtLeast: 0.7 } },
        await measured(this.figures[1] ?? "", 1),
      ];
    } finally {
      await store[Symbol.asyncDispose]();
      bare.close();
      rmSync(dir, { recursive: true, force: true });
    }
  },
};

function rate(commits: number, batch: number, commit: () => void): number {
  const began = performance.now();
  for (let done = 0; done < commits; done += 1) commit();
  return (commits * batch) / ((performance.now() - began) / 1000);
}
