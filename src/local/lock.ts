import { chmodSync, closeSync, openSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";

/**
 * A lock on a file that the kernel takes away with the process that holds it, however that ends. Node has no `flock`;
 * SQLite has: an exclusive transaction in an otherwise empty database. Two daemons that start in the same moment can thus
 * not both believe that a socket is stale.
 *
 * Returns undefined where another process holds it. The file stays: removing it would open a gap for a third.
 */
export function tryLock(path: string): Disposable | undefined {
  closeSync(openSync(path, "a", 0o600));
  chmodSync(path, 0o600);
  const database = new DatabaseSync(path);
  try {
    // Nothing is ever written; a journal in memory means no second file either.
    database.exec("PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if ((error as { errcode?: number }).errcode === SQLITE_BUSY) return undefined;
    throw error;
  }
  return { [Symbol.dispose]: () => database.close() };
}

/** Result code of SQLite: somebody else holds the lock. */
const SQLITE_BUSY = 5;
