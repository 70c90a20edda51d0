import { createReadStream } from "node:fs";
import { dirname } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Pack, pack } from "tar-stream";

/** One file of the runtime; it lies in the image where it lies here. */
export interface RuntimeFile {
  readonly path: string;
  readonly size: number;
}

/** A tar archive of files of this machine, read while it is read. It breaks off where one of them cannot be read or has changed its size. */
export function archiveOf(files: readonly RuntimeFile[]): Readable {
  const archive = pack();
  fill(archive, files).catch((error: Error) => archive.destroy(error));
  return Readable.from(archive);
}

async function fill(archive: Pack, files: readonly RuntimeFile[]): Promise<void> {
  const mtime = new Date(0);
  // A user other than root gets into folders only with a mode that lets them.
  for (const name of foldersOf(files)) archive.entry({ name, type: "directory", mode: 0o755, mtime });
  for (const { path, size } of files) {
    await pipeline(createReadStream(path), archive.entry({ name: path.slice(1), size, mode: 0o755, mtime }));
  }
  archive.finalize();
}

function foldersOf(files: readonly RuntimeFile[]): string[] {
  const folders = new Set<string>();
  for (const { path } of files) {
    for (let folder = dirname(path); folder !== "/"; folder = dirname(folder)) folders.add(`${folder.slice(1)}/`);
  }
  return [...folders].sort();
}
