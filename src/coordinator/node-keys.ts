import type { DatabaseSync } from "node:sqlite";
import * as z from "zod";

/** A key a node had before the one it has. */
export interface KeyBefore {
  id: string;
  /** Raw 32 bytes, base64url. */
  publicKey: string;
  /** RFC 3339. */
  retiredAt: string;
}

const Row = z.object({ id: z.string(), public_key: z.string(), retired_at: z.string() });

/** The keys that nodes gave up. None of them lets anybody in any more; what they signed still verifies. */
export class NodeKeys {
  readonly #db: DatabaseSync;

  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  /** Oldest first. */
  before(node: string): KeyBefore[] {
    const rows = this.#db
      .prepare("SELECT id, public_key, retired_at FROM retired_keys WHERE node = ? ORDER BY retired_at, rowid")
      .all(node);
    return rows.map((row) => {
      const { id, public_key: publicKey, retired_at: retiredAt } = Row.parse(row);
      return { id, publicKey, retiredAt };
    });
  }

  /** The id of the node that gave this key up, as it is now. */
  successor(id: string): string | undefined {
    const row = this.#db.prepare("SELECT node FROM retired_keys WHERE id = ?").get(id);
    return row === undefined ? undefined : String(row.node);
  }

  /** All that is kept of the node is its new key's from now on. Within the caller's transaction. */
  replace(old: { id: string; publicKey: string }, key: { id: string; publicKey: string }, at: string): void {
    // The rows that name the node can only follow one after the other.
    this.#db.exec("PRAGMA defer_foreign_keys = ON");
    this.#db.prepare("UPDATE nodes SET id = ?, public_key = ? WHERE id = ?").run(key.id, key.publicKey, old.id);
    for (const table of ["workloads", "events", "retired_keys"]) {
      this.#db.prepare(`UPDATE ${table} SET node = ? WHERE node = ?`).run(key.id, old.id);
    }
    this.#db
      .prepare("INSERT INTO retired_keys (id, public_key, node, retired_at) VALUES (?, ?, ?, ?)")
      .run(old.id, old.publicKey, key.id, at);
  }
}
