import { type Command, Option } from "commander";
import type { Key } from "../config/key.ts";
import { envNameOf, KEY_NAMES, KEYS, type KeyName } from "../config/keys.ts";
import { type ConfigOptions, withConfig } from "./daemon-client.ts";
import { askHostDetails } from "./host-details.ts";
import { command } from "./outcome.ts";
import { gpunodeVersion } from "./version.ts";

/** The flags of the configuration's keys, by the name commander gives their values. */
const FLAGS = KEY_NAMES.flatMap((key) => {
  const { flag, description, defaultText, kind }: Key<unknown> = KEYS[key];
  if (flag === undefined) return [];
  const fallback = defaultText === "none" ? "" : ` (default: ${defaultText.replaceAll("`", "")})`;
  const option = new Option(flag, description.split(". ")[0]?.replace(/\.$/, "") + fallback);
  // For the help and for shells; what is wrong with a value the configuration says itself.
  if (kind.choices !== undefined) option.argChoices = [...kind.choices];
  return [{ key, option }];
});

export function registerRun(program: Command): void {
  const run = withConfig(program.command("run")).description("run the daemon in the foreground");
  for (const { option } of FLAGS) run.addOption(option);
  run
    .addHelpText(
      "after",
      "\nEvery other value: the configuration file, or its environment variable (docs/configuration.md).",
    )
    .action(command(daemon));
}

async function daemon(options: ConfigOptions & Record<string, string | boolean | undefined>): Promise<void> {
  const flags: { [K in KeyName]?: string | boolean } = {};
  for (const { key, option } of FLAGS) {
    const value = options[option.attributeName()];
    if (value !== undefined) flags[key] = value;
  }
  const { resolveConfig } = await import("../config/load.ts");
  const { config: file } = options;
  const resolution = await resolveConfig({ env: process.env, flags, ...(file !== undefined && { file }) });
  // Read already. The programs the daemon starts need none of them.
  for (const key of KEY_NAMES) if (KEYS[key].kind.secret === true) delete process.env[envNameOf(key)];
  // One file of the bundle with all of it.
  const { createLog, keepTidy, runAgent, runDaemon, withJoinToken } = await import("./daemon-parts.ts");
  const config = withJoinToken(resolution.config);
  process.title = "gpunode";
  const log = createLog(config.log, process.stdout);
  for (const warning of resolution.warnings) log.warn(warning);
  using _tidy = keepTidy();
  const code = await runDaemon(runAgent, config, { log, version: gpunodeVersion(), hostDetails: askHostDetails });
  // What is still open now is nothing anybody waits for.
  process.exit(code);
}
