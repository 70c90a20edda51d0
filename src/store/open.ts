import { chmodSync, closeSync, existsSync, mkdirSync, openSync, renameSync } from "node:fs";
import { basename, dirname } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { openDatabase } from "./sqlite.ts";

/** SQLite's primary result codes (https://sqlite.org/rescode.html) this room tells apart. */
const SQLITE_BUSY = 5;
const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;

export interface OpenedDatabase {
  db: DatabaseSync;
  /** Where a file that could not be read was put; a new one was started in its place. */
  setAside?: string;
}

/**
 * Opens the one database of an agent for it alone, with mode 0600. A file that is damaged is kept aside as
 * `<name>.corrupt-<time>` and a new one is started: a node that lost its memory is better than none.
 *
 * Throws where another process has it open, where a newer gpunode wrote it, or where the disk refuses.
 */
export function openOwnDatabase(path: string, migrations: readonly string[], now: () => number): OpenedDatabase {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  try {
    return { db: openSound(path, migrations) };
  } catch (error) {
    if (primaryCode(error) === SQLITE_BUSY) {
      throw new Error(`${path} is in use by another gpunode: stop it, or give this one a state_dir of its own`, {
        cause: error,
      });
    }
    if (!(error instanceof DamagedError) && ![SQLITE_CORRUPT, SQLITE_NOTADB].includes(primaryCode(error) ?? 0)) {
      throw error;
    }
  }
  const setAside = moveAside(path, now());
  return { db: openSound(path, migrations), setAside };
}

class DamagedError extends Error {}

function openSound(path: string, migrations: readonly string[]): DatabaseSync {
  // SQLite would make the file with the umask's mode; its -wal and -shm take the mode of the file.
  closeSync(openSync(path, "a", 0o600));
  chmodSync(path, 0o600);
  const db = openDatabase(path, migrations);
  try {
    const [verdict] = db.prepare("PRAGMA quick_check(1)").all();
    if (verdict?.quick_check !== "ok") throw new DamagedError(String(verdict?.quick_check));
    // Taken with the first write and kept until the file is closed: two agents on one state would each undo the other.
    // Half a MiB of pages, not two: rows are written once and read at a start.
    db.exec("PRAGMA cache_size = -512; PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; PRAGMA user_version = 0");
    db.exec(`PRAGMA user_version = ${migrations.length}; COMMIT`);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Moves the file and what belongs to it; returns the new name of the file. */
function moveAside(path: string, now: number): string {
  const stamp = new Date(now).toISOString().replaceAll(":", "-");
  const target = `${path}.corrupt-${stamp}`;
  for (const suffix of ["", "-wal", "-shm"]) {
    if (existsSync(path + suffix)) renameSync(path + suffix, target + suffix);
  }
  return basename(target);
}

/** The low byte of `errcode`, which `node:sqlite` puts on its errors. */
function primaryCode(error: unknown): number | undefined {
  const code = (error as { errcode?: unknown } | null)?.errcode;
  return typeof code === "number" ? code & 0xff : undefined;
}
