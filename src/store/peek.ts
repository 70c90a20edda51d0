import { copyFileSync, existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** What a node's database holds, unread: the bodies are JSON as their writers left it, or text where they are none. */
export interface StateSeen {
  /** PRAGMA user_version. */
  schema: number;
  records: { key: string; body: unknown }[];
  /** The newest events the coordinator has not acked, oldest first. */
  events: { seq: number; at: string; body: unknown }[];
  position: { newest: number; acked: number };
  settings: Record<string, string>;
  /** How many usage records the ledger has. */
  usageRecords: number;
}

/** A state of this size is not copied just to be looked at. */
const MOST_BYTES = 512 * 1024 * 1024;
/** The daemon may move pages from its log into the file while both are copied; then the copies do not fit. */
const ATTEMPTS = 3;

/**
 * Looks into the database of a daemon that may be running, which has locked it: into a copy, in a folder of its own that only this user may read
 * and that is gone afterwards. The original is only read. Throws where there is none, it is damaged, or too large.
 */
export function peekIntoState(path: string, { events }: { events: number }): StateSeen {
  const bytes = [path, `${path}-wal`].reduce((sum, file) => sum + (existsSync(file) ? statSync(file).size : 0), 0);
  if (bytes > MOST_BYTES) throw new Error(`${path} has ${bytes} bytes, more than is copied (${MOST_BYTES})`);
  for (let attempt = 1; ; attempt += 1) {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-peek-"));
    try {
      const copy = join(dir, "state.db");
      copyFileSync(path, copy);
      if (existsSync(`${path}-wal`)) copyFileSync(`${path}-wal`, `${copy}-wal`);
      return read(copy, events);
    } catch (error) {
      if (attempt >= ATTEMPTS) throw error;
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }
}

function read(path: string, mostEvents: number): StateSeen {
  const db = new DatabaseSync(path);
  try {
    const [verdict] = db.prepare("PRAGMA quick_check(1)").all();
    if (verdict?.quick_check !== "ok") throw new Error(`it is damaged: ${String(verdict?.quick_check)}`);
    const position = db.prepare("SELECT newest, acked FROM position").get();
    const newest = db.prepare("SELECT seq, at, body FROM events ORDER BY seq DESC LIMIT ?").all(mostEvents).reverse();
    return {
      schema: Number(db.prepare("PRAGMA user_version").get()?.user_version ?? 0),
      records: db
        .prepare("SELECT key, body FROM records ORDER BY key")
        .all()
        .map(({ key, body }) => ({ key: String(key), body: jsonOf(body) })),
      events: newest.map(({ seq, at, body }) => ({ seq: Number(seq), at: String(at), body: jsonOf(body) })),
      position: { newest: Number(position?.newest ?? 0), acked: Number(position?.acked ?? 0) },
      settings: Object.fromEntries(
        db
          .prepare("SELECT key, value FROM settings ORDER BY key")
          .all()
          .map(({ key, value }) => [String(key), String(value)]),
      ),
      usageRecords: Number(db.prepare("SELECT count(*) AS count FROM usage").get()?.count ?? 0),
    };
  } finally {
    db.close();
  }
}

function jsonOf(body: unknown): unknown {
  try {
    return JSON.parse(String(body));
  } catch {
    return String(body);
  }
}
