import { type Command, Option } from "commander";
import type { Key } from "../config/key.ts";
import { KEY_NAMES, KEYS, type KeyName } from "../config/keys.ts";
import { type ConfigOptions, withConfig } from "./daemon-client.ts";
import { command } from "./outcome.ts";

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

export type RunOptions = ConfigOptions & Record<string, string | boolean | undefined>;

/** `daemon` is what it runs. */
export function registerRun(program: Command, daemon: (options: RunOptions) => Promise<void>): void {
  const run = withConfig(program.command("run")).description("run the daemon in the foreground");
  for (const { option } of FLAGS) run.addOption(option);
  run
    .addHelpText(
      "after",
      "\nEvery other value: the configuration file, or its environment variable (docs/configuration.md).",
    )
    .action(command(daemon));
}

/** The keys of the configuration that were given as flags. */
export function flagsOf(options: RunOptions): { [K in KeyName]?: string | boolean } {
  const flags: { [K in KeyName]?: string | boolean } = {};
  for (const { key, option } of FLAGS) {
    const value = options[option.attributeName()];
    if (value !== undefined) flags[key] = value;
  }
  return flags;
}
