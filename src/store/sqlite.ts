import { DatabaseSync } from "node:sqlite";

/**
 * Opens (or makes) a SQLite file the way everything here keeps state: WAL, and a commit is on the disk before it
 * returns. `migrations[n]` takes the schema from version n to n + 1; each runs once, in its own transaction.
 *
 * Throws where the file cannot be opened, is not a database, or was written by a newer gpunode.
 */
export function openDatabase(path: string, migrations: readonly string[]): DatabaseSync {
  const db = new DatabaseSync(path);
  try {
    db.exec(
      "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 2000",
    );
    const version = Number(db.prepare("PRAGMA user_version").get()?.user_version ?? 0);
    if (version > migrations.length) {
      throw new Error(
        `${path} was written by a newer gpunode (schema ${version}, this one knows ${migrations.length}): upgrade gpunode, or move the file away to start anew`,
      );
    }
    migrations.slice(version).forEach((sql, index) => {
      transaction(db, () => {
        db.exec(sql);
        db.exec(`PRAGMA user_version = ${version + index + 1}`);
      });
    });
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Runs `work` in one immediate transaction: all of it is on the disk when this returns, or none of it. */
export function transaction<T>(db: DatabaseSync, work: () => T): T {
  db.exec("BEGIN IMMEDIATE");
  try {
    const result = work();
    db.exec("COMMIT");
    return result;
  } catch (error) {
    if (db.isTransaction) db.exec("ROLLBACK");
    throw error;
  }
}
