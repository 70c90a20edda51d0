import {
  chmodSync,
  closeSync,
  cpSync,
  fstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";

/** Writes a file of a tree, with the folders above it. */
export function put(path, contents) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, contents);
}

/** Copies a file or a folder of plain files into a tree. */
export function copy(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  cpSync(from, to, { recursive: true });
}

/** As `gzip -9n` writes it, so that the same contents are the same file. */
export function gzipped(contents) {
  return gzipSync(contents, { level: 9 });
}

/**
 * Gives everything below `dir` modes and times that depend on nothing but what it is: folders and programs 0755, other files 0644, `epoch`
 * (seconds) for all. Returns how many KiB the files take, each rounded up as dpkg counts them.
 */
export function settle(dir, epoch) {
  let kibibytes = 0;
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) kibibytes += settle(path, epoch);
    else if (entry.isFile()) {
      const { length, isProgram } = about(path);
      kibibytes += Math.ceil(length / 1024);
      chmodSync(path, isProgram ? 0o755 : 0o644);
    }
    if (!entry.isDirectory()) lutimesSync(path, epoch, epoch);
  }
  chmodSync(dir, 0o755);
  lutimesSync(dir, epoch, epoch);
  return kibibytes + 1;
}

/** ELF or a script with an interpreter. */
function about(path) {
  const start = Buffer.alloc(4);
  const file = openSync(path, "r");
  try {
    readSync(file, start, 0, start.length, 0);
    const isProgram = start.equals(Buffer.from("\x7fELF")) || start.subarray(0, 2).equals(Buffer.from("#!"));
    return { length: fstatSync(file).size, isProgram };
  } finally {
    closeSync(file);
  }
}
