// Makes what is installed: gpunode_VERSION_ARCH.deb and gpunode-VERSION-linux-ARCH.tar.xz in dist-package, with SHA256SUMS. The same commit
// makes the same bytes, on any machine with dpkg-deb and xz.
//   node scripts/package.mjs [--arch x64|arm64|all] [--version V] [--compression xz|gzip|none] [--out DIR] [--maintainer "NAME <ADDRESS>"]
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { makeDeb } from "./package/deb.mjs";
import { nodeRuntime } from "./package/node-runtime.mjs";
import { program } from "./package/program.mjs";
import { makeTarball } from "./package/tarball.mjs";

const ARCHS = ["x64", "arm64"];
const COMPRESSIONS = ["xz", "gzip", "none"];

process.on("uncaughtException", ({ message }) => {
  console.error(`package: ${message}`);
  process.exit(1);
});
const root = resolve(import.meta.dirname, "..");
const { version: ownVersion } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const { values: given } = parseArgs({
  options: {
    arch: { type: "string", default: process.arch },
    version: { type: "string", default: ownVersion },
    compression: { type: "string", default: "xz" },
    out: { type: "string", default: join(root, "dist-package") },
    // Nobody's address: whoever publishes a package puts their own.
    maintainer: { type: "string", default: "gpunode contributors <maintainers@gpunode.invalid>" },
  },
});
const archs = given.arch === "all" ? ARCHS : [oneOf("--arch", given.arch, ARCHS)];
const compression = oneOf("--compression", given.compression, COMPRESSIONS);
if (!/^\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?$/.test(given.version)) {
  throw new Error(`--version ${given.version}: expected a version such as 1.2.0 or 1.2.0-rc.1`);
}
const outDir = resolve(given.out);
mkdirSync(outDir, { recursive: true });
const epoch = sourceDate();
const made = await program(root, given.version);
const work = mkdtempSync(join(tmpdir(), "gpunode-package-"));
try {
  const files = archs.flatMap((arch) => {
    const folder = join(work, arch);
    mkdirSync(folder);
    const how = { arch, runtime: nodeRuntime(root, arch), epoch, compression, outDir, maintainer: given.maintainer };
    return [makeDeb(folder, made, how), makeTarball(folder, made, how)];
  });
  const sums = files.map(
    (file) => `${createHash("sha256").update(readFileSync(file)).digest("hex")}  ${basename(file)}`,
  );
  writeFileSync(join(outDir, "SHA256SUMS"), `${sums.join("\n")}\n`);
  for (const file of files) console.log(`${file}  ${(statSync(file).size / 2 ** 20).toFixed(1)} MiB`);
} finally {
  rmSync(work, { recursive: true, force: true });
}

/** Seconds: what the environment says (reproducible-builds.org), or when the last commit was made. */
function sourceDate() {
  const named = process.env.SOURCE_DATE_EPOCH;
  if (named !== undefined && /^\d+$/.test(named)) return Number(named);
  try {
    return Number(execFileSync("git", ["-C", root, "log", "-1", "--format=%ct"], { encoding: "utf8", stdio: "pipe" }));
  } catch (error) {
    throw new Error(`${root} is no git checkout: say when its source was made, SOURCE_DATE_EPOCH=SECONDS`, {
      cause: error,
    });
  }
}

function oneOf(flag, value, choices) {
  if (!choices.includes(value)) throw new Error(`${flag} ${value}: expected ${choices.join(" or ")}`);
  return value;
}
