import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

/**
 * The Node that is packaged for an architecture: `{ version, node, licence }`, paths of the program and of its licences. It is the
 * npm package that package-lock.json names; of another architecture than this machine's npm does not install it, so it is fetched with
 * `npm pack`, held against the lockfile's hash, and kept below node_modules/.cache.
 */
export function nodeRuntime(root, arch) {
  const name = `node-linux-${arch}`;
  const { version, integrity } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages[
    `node_modules/${name}`
  ];
  const installed = join(root, "node_modules", name);
  const kept = join(root, "node_modules/.cache/gpunode-package", `${name}-${version}`);
  const folder = existsSync(installed) ? installed : kept;
  if (!existsSync(folder)) fetchPackage({ name, version, integrity, folder });
  const found = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version;
  if (found !== version) {
    throw new Error(`${folder} is ${name} ${found}, package-lock.json wants ${version}: run npm ci`);
  }
  return { version, node: join(folder, "bin/node"), licence: join(folder, "LICENSE") };
}

function fetchPackage({ name, version, integrity, folder }) {
  const parent = join(folder, "..");
  mkdirSync(parent, { recursive: true });
  const work = mkdtempSync(join(parent, ".fetching-"));
  try {
    console.log(`fetching ${name} ${version}`);
    const args = ["pack", "--silent", "--pack-destination", work, `${name}@${version}`];
    const file = execFileSync("npm", args, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] }).trim();
    const archive = join(work, file);
    const hash = `sha512-${createHash("sha512").update(readFileSync(archive)).digest("base64")}`;
    if (hash !== integrity) {
      throw new Error(`${name} ${version} as fetched has the hash ${hash}, package-lock.json says ${integrity}`);
    }
    execFileSync("tar", ["--extract", "--gzip", `--file=${archive}`, `--directory=${work}`]);
    renameSync(join(work, "package"), folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
