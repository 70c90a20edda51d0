import type { Command } from "commander";
import type { LocalClient } from "../local/client.ts";

export interface ConfigOptions {
  config?: string;
}

export interface AskOptions extends ConfigOptions {
  json?: true;
}

/** `--config`, which every command takes. */
export function withConfig(command: Command): Command {
  return command.option(
    "--config <file>",
    "configuration file (default: /etc/gpunode/config.toml, where there is one)",
  );
}

/** Options of the commands that ask the daemon or print data. */
export function withJson(command: Command): Command {
  return withConfig(command).option("--json", "print JSON");
}

/** The daemon the configuration points to. Throws `ConfigError`; whether it runs shows when it is asked. */
export async function daemonOf({ config: file }: ConfigOptions): Promise<LocalClient> {
  // One file of the bundle with all of it.
  const { findDaemon } = await import("./find-daemon.ts");
  return await findDaemon(file);
}
