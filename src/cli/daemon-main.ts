import { askGpus } from "../agent/asked-gpus.ts";
import { envNameOf, KEY_NAMES, KEYS } from "../config/keys.ts";
import { resolveConfig } from "../config/load.ts";
import { emptyProgram, followCommandLine } from "./command-line.ts";
import { flagsOf, type RunOptions, registerRun } from "./run.ts";
import { gpunodeVersion } from "./version.ts";

// `gpunode run`, a program of its own: without the other commands it is there sooner.

/** From bin/gpunode.js: keeps the compiled code as it is now, for the next start. Not there where this runs from its sources. */
declare const keepCode: (() => void) | undefined;
/** The coordinator has the GPUs by then, and what is done from then on is no part of a start. */
const STARTED_MS = 100;

async function daemon(options: RunOptions): Promise<never> {
  const { config: file } = options;
  const resolution = await resolveConfig({
    env: process.env,
    flags: flagsOf(options),
    ...(file !== undefined && { file }),
  });
  // Read already. The programs the daemon starts need none of them.
  for (const key of KEY_NAMES) if (KEYS[key].kind.secret === true) delete process.env[envNameOf(key)];
  using asked = askGpus(resolution.config);
  const { askHostDetails, createLog, keepTidy, runAgent, runDaemon, withJoinToken } = await import("./daemon-parts.ts");
  const config = withJoinToken(resolution.config);
  process.title = "gpunode";
  const log = createLog(config.log, process.stdout);
  for (const warning of resolution.warnings) log.warn(warning);
  using _tidy = keepTidy();
  const code = keptCode();
  const exitCode = await runDaemon(runAgent, config, {
    log,
    version: gpunodeVersion(),
    asked,
    hostDetails: askHostDetails,
    onUp: code.keepSoon,
  });
  code.keepNow();
  // What is still open now is nothing anybody waits for.
  process.exit(exitCode);
}

/** Once the daemon is up, its code is kept soon, or when it ends before. */
function keptCode(): { keepSoon(): void; keepNow(): void } {
  let timer: NodeJS.Timeout | undefined;
  const keepNow = () => {
    if (timer === undefined) return;
    clearTimeout(timer);
    timer = undefined;
    if (typeof keepCode === "function") keepCode();
  };
  const keepSoon = () => {
    timer = setTimeout(keepNow, STARTED_MS).unref();
  };
  return { keepSoon, keepNow };
}

const program = emptyProgram();
registerRun(program, daemon);
void followCommandLine(program);
