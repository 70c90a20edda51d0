import { randomUUID } from "node:crypto";
import {
  closeSync,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { GpunodeError } from "../protocol/errors.ts";

/** What a key file holds; undefined where there is none. Throws `policy_denied` where others than its owner may read it. */
export function readKeyFile(path: string): string | undefined {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const mode = fstatSync(file).mode & 0o777;
    if ((mode & 0o077) !== 0) {
      throw new GpunodeError(
        "policy_denied",
        `${path} has mode ${mode.toString(8).padStart(4, "0")}, so others may read this node's key: "chmod 600 ${path}" if nobody has, else remove it to make a new key (the node is then a new one to its coordinator)`,
        { details: { path, mode } },
      );
    }
    return readFileSync(file, "utf8");
  } finally {
    closeSync(file);
  }
}

/**
 * Whole on the disk under its name with mode 0600, or not there at all: a power cut must not leave half a key. With
 * `replace` it takes the place of what lies there; without, it throws EEXIST.
 */
export function writeKeyFile(path: string, text: string, { replace }: { replace: boolean }): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  // Of one name where nobody else writes: what a crash leaves of it, with a key in it, is gone with the next attempt.
  const draft = replace ? `${path}.tmp` : `${path}.${randomUUID()}.tmp`;
  const file = openSync(draft, replace ? "w" : "wx", 0o600);
  try {
    writeSync(file, text);
    fsyncSync(file);
    if (replace) renameSync(draft, path);
    // A link, not a rename: the key of another process that was quicker must stay.
    else linkSync(draft, path);
  } catch (error) {
    unlinkSync(draft);
    throw error;
  } finally {
    closeSync(file);
  }
  if (!replace) unlinkSync(draft);
  syncFolder(path);
}

/** Gone for good; no error where it is not there. */
export function removeKeyFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return;
  }
  syncFolder(path);
}

function syncFolder(path: string): void {
  const folder = openSync(dirname(path), "r");
  fsyncSync(folder);
  closeSync(folder);
}
