import { existsSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, resolve } from "node:path";
import { buffer } from "node:stream/consumers";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { pack } from "tar-stream";
import type { Resolution } from "../../config/load.ts";
import { draftOf } from "../../config/replace-file.ts";
import { gpunodeVersion } from "../version.ts";
import { json, type MadePart, madePart } from "./part.ts";
import { contentsOf } from "./parts.ts";
import { createRedactor } from "./redactor.ts";

export interface BundleOptions {
  /** The configuration in force, or why it cannot be read. */
  resolution: Resolution | Error;
  /** As given with `--config`. */
  file: string | undefined;
  /** Where the archive goes; in this folder where absent. */
  output?: string;
  /** Ends it early, with nothing written. */
  signal: AbortSignal;
}

export interface Bundle {
  path: string;
  bytes: number;
  parts: readonly MadePart[];
}

/**
 * Collects, hides, packs and writes. Nothing is on the disk before all of it is there; what cannot be collected is said in the manifest, and is
 * no failure. Throws where the archive cannot be written.
 */
export async function makeBundle({ resolution, file, output, signal }: BundleOptions): Promise<Bundle> {
  const at = new Date();
  const name = `gpunode-support-${hostname().replace(/[^\w.-]/g, "_")}-${stampOf(at)}`;
  const path = resolve(output ?? `${name}.tar.gz`);
  if (existsSync(path)) throw new Error(`${path} is there already: give another name with --output, or remove it`);
  if (!existsSync(dirname(path))) throw new Error(`${path}: there is no folder ${dirname(path)}`);
  const redactor = createRedactor();
  const contents = contentsOf({ resolution, file, redactor, signal });
  await contents.learnSecrets();
  const parts = await Promise.all(contents.parts.map((part) => madePart(part, redactor)));
  signal.throwIfAborted();
  const archive = await packed(name, parts, at);
  // Who runs this by sudo is to be able to hand it on.
  const owner = process.getuid?.() === 0 ? { uid: idOf("SUDO_UID"), gid: idOf("SUDO_GID") } : {};
  using draft = draftOf(path, archive, { mode: 0o600, ...owner });
  draft.putInPlace();
  return { path, bytes: archive.length, parts };
}

/** One folder, with a manifest first; what was not collected has no file. */
async function packed(folder: string, parts: readonly MadePart[], mtime: Date): Promise<Buffer> {
  const manifest = {
    madeAt: mtime.toISOString(),
    gpunode: gpunodeVersion(),
    note: "Secrets are hidden: each file says which, and how many times. Names of machines, programs, images and coordinators are not.",
    files: parts.map(({ file, from, text, hidden, problem }) => ({
      file,
      from,
      bytes: Buffer.byteLength(text),
      hidden,
      ...(problem !== undefined && { problem }),
    })),
  };
  const tar = pack();
  const add = (name: string, text: string) => tar.entry({ name: `${folder}/${name}`, mode: 0o600, mtime }, text);
  add("manifest.json", json(manifest));
  for (const { file, text } of parts) if (text !== "") add(file, text);
  tar.finalize();
  return await promisify(gzip)(await buffer(tar));
}

function idOf(variable: string): number {
  const text = process.env[variable] ?? "";
  return /^\d{1,9}$/.test(text) ? Number(text) : 0;
}

/** "20260131-140305" by this machine's clock. */
function stampOf(at: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${at.getFullYear()}${two(at.getMonth() + 1)}${two(at.getDate())}`;
  return `${day}-${two(at.getHours())}${two(at.getMinutes())}${two(at.getSeconds())}`;
}
