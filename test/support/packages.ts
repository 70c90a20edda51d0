import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

const PACKAGE = resolve(import.meta.dirname, "../../scripts/package.mjs");

/** Packages made for a test, as `npm run package` makes them but for the compression, which takes its time. */
export interface Made extends Disposable {
  dir: string;
  deb(version: string): string;
  tarball(version: string): string;
}

/** Makes the packages of these versions, for this machine, in a folder that is gone when it is disposed of. */
export async function makePackages(...versions: string[]): Promise<Made> {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-packages-"));
  for (const version of versions) await makeInto(dir, "--version", version, "--compression", "none");
  const debArch = process.arch === "x64" ? "amd64" : process.arch;
  return {
    dir,
    deb: (version) => join(dir, `gpunode_${version}_${debArch}.deb`),
    tarball: (version) => join(dir, `gpunode-${version}-linux-${process.arch}.tar`),
    [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }),
  };
}

/** Runs scripts/package.mjs; throws where it fails. */
export async function makeInto(dir: string, ...args: string[]): Promise<void> {
  await promisify(execFile)(process.execPath, [PACKAGE, "--out", dir, ...args]);
}
