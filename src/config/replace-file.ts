import { randomUUID } from "node:crypto";
import { closeSync, fchmodSync, fchownSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";

export interface FileOwner {
  /** Permission bits, as `0o640`. */
  mode: number;
  /** Both absent: whoever writes. Another owner takes root. */
  uid?: number;
  gid?: number;
}

/** A file's new contents, on the disk beside it; nothing has changed yet. Disposing takes away what was not put in place. */
export interface Draft extends Disposable {
  /** Where it lies meanwhile. */
  readonly path: string;
  /** It takes the file's place, in one step. */
  putInPlace(): void;
}

/**
 * Writes what is to take a file's place, in its folder, with its mode from the beginning: nobody sees half of it, and no power cut leaves
 * half. Throws what the disk says.
 */
export function draftOf(path: string, contents: string | Uint8Array, { mode, uid, gid }: FileOwner): Draft {
  const draft = join(dirname(path), `.${basename(path)}.${randomUUID()}.tmp`);
  const file = openSync(draft, "wx", 0o600);
  try {
    writeFileSync(file, contents);
    if (uid !== undefined || gid !== undefined)
      fchownSync(file, uid ?? process.getuid?.() ?? 0, gid ?? process.getgid?.() ?? 0);
    // Not before it has its owner: a new one's group may be another.
    fchmodSync(file, mode);
    fsyncSync(file);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  } finally {
    closeSync(file);
  }
  return {
    path: draft,
    putInPlace() {
      renameSync(draft, path);
      syncFolder(dirname(path));
    },
    [Symbol.dispose]: () => rmSync(draft, { force: true }),
  };
}

function syncFolder(path: string): void {
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
