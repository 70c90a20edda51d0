import type { Command } from "commander";
import { type AskOptions, type ConfigOptions, withConfig, withJson } from "./daemon-client.ts";
import { command, print, printJson } from "./outcome.ts";
import { optionsOf, renderTable } from "./table.ts";

export function registerConfig(program: Command): void {
  const config = program.command("config").description("look at the configuration");
  withConfig(config.command("check")).description("say whether it is right").action(command(check));
  withJson(config.command("show")).description("every value in force and where it was set").action(command(show));
}

async function check(options: ConfigOptions): Promise<void> {
  const { config, file, warnings } = await resolve(options);
  const { withJoinToken } = await import("../config/join-token.ts");
  withJoinToken(config);
  for (const warning of warnings) process.stderr.write(`gpunode: warning: ${warning}\n`);
  print(`${file ?? "No configuration file; the defaults and the environment"}: right\n`);
}

async function show(options: AskOptions): Promise<void> {
  const { settings, file, warnings } = await resolve(options);
  if (options.json === true) return printJson({ ...(file !== undefined && { file }), settings, warnings });
  const { valueInWords } = await import("../config/load.ts");
  const columns = [{ title: "KEY" }, { title: "VALUE", shrinks: true as const }, { title: "FROM" }];
  const rows = settings.map(({ key, value, source }) => [key, valueInWords(value), source]);
  print(renderTable(columns, rows, optionsOf(process.stdout)));
  for (const warning of warnings) process.stderr.write(`gpunode: warning: ${warning}\n`);
}

async function resolve({ config: file }: ConfigOptions) {
  const { resolveConfig } = await import("../config/load.ts");
  return resolveConfig({ env: process.env, ...(file !== undefined && { file }) });
}
