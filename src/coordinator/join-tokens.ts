import { createHash, randomBytes } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import { transaction } from "../store/sqlite.ts";

/** A token as it was made: told once, then only its hash is known. */
export interface MadeToken {
  token: string;
  uses: number;
  /** RFC 3339. */
  expiresAt: string;
}

/**
 * What admits new keys. Only hashes are kept: a token that is looked up by its SHA-256 tells nothing by how long that takes, and
 * the file gives none away.
 */
export class JoinTokens {
  readonly #db: DatabaseSync;
  readonly #now: () => number;

  constructor(db: DatabaseSync, now: () => number) {
    this.#db = db;
    this.#now = now;
  }

  /** Whether there is one without an end. */
  get hasLasting(): boolean {
    return this.#db.prepare("SELECT 1 FROM tokens WHERE expires_at IS NULL").get() !== undefined;
  }

  /**
   * Makes these the only lasting tokens that admit; one that was known keeps its count, and those of `make` stay. `uses` is
   * how many keys each admits.
   */
  settle(tokens: readonly string[], uses?: number): void {
    const hashes = tokens.map(hashOf);
    transaction(this.#db, () => {
      this.#db
        .prepare("DELETE FROM tokens WHERE expires_at IS NULL AND hash NOT IN (SELECT value FROM json_each(?))")
        .run(JSON.stringify(hashes));
      const insert = this.#db.prepare("INSERT OR IGNORE INTO tokens (hash, uses_left) VALUES (?, ?)");
      for (const hash of hashes) insert.run(hash, uses ?? null);
    });
  }

  /** One more, for so many keys and so long. */
  make({ uses, forSeconds }: { uses: number; forSeconds: number }): MadeToken {
    const token = randomBytes(24).toString("base64url");
    const expiresAt = new Date(this.#now() + forSeconds * 1000).toISOString();
    this.#db.prepare("DELETE FROM tokens WHERE expires_at <= ?").run(this.#nowIso());
    this.#db
      .prepare("INSERT INTO tokens (hash, uses_left, expires_at) VALUES (?, ?, ?)")
      .run(hashOf(token), uses, expiresAt);
    return { token, uses, expiresAt };
  }

  /** Counts it down. False where it does not admit (any more). */
  spend(token: string): boolean {
    const spent = this.#db
      .prepare(
        `UPDATE tokens SET uses_left = uses_left - 1
         WHERE hash = ? AND (uses_left IS NULL OR uses_left > 0) AND (expires_at IS NULL OR expires_at > ?)`,
      )
      .run(hashOf(token), this.#nowIso());
    return spent.changes > 0;
  }

  #nowIso(): string {
    return new Date(this.#now()).toISOString();
  }
}

function hashOf(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}
