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
  const [{ runDirOf }, { connectLocal }, { socketPathIn }] = await Promise.all([
    import("../config/load.ts"),
    import("../local/client.ts"),
    import("../local/socket-path.ts"),
  ]);
  const runDir = await runDirOf({ env: process.env, ...(file !== undefined && { file }) });
  return connectLocal(socketPathIn(runDir));
}
