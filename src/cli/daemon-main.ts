import { askGpus } from "../agent/asked-gpus.ts";
import { envNameOf, KEY_NAMES, KEYS } from "../config/keys.ts";
import { resolveConfig } from "../config/load.ts";
import { emptyProgram, followCommandLine } from "./command-line.ts";
import { flagsOf, type RunOptions, registerRun } from "./run.ts";
import { gpunodeVersion } from "./version.ts";

// `gpunode run`, in a file of its own: one that starts without the other commands is there sooner.
const program = emptyProgram();
registerRun(program, daemon);
await followCommandLine(program);

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
  const code = await runDaemon(runAgent, config, {
    log,
    version: gpunodeVersion(),
    asked,
    hostDetails: askHostDetails,
  });
  // What is still open now is nothing anybody waits for.
  process.exit(code);
}
