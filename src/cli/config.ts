import { cpus, totalmem } from "node:os";
import type { Command } from "commander";
import { type AskOptions, type ConfigOptions, withConfig, withJson } from "./daemon-client.ts";
import { command, print, printJson } from "./outcome.ts";
import { optionsOf, renderTable } from "./table.ts";

export function registerConfig(program: Command): void {
  const config = program.command("config").description("look at the configuration");
  withConfig(config.command("check")).description("say whether it is right").action(command(check));
  withJson(config.command("show"))
    .description("every value in force, where it was set, and what a workload may do here")
    .action(command(show));
}

async function check(options: ConfigOptions): Promise<void> {
  const { config, file, warnings } = await resolve(options);
  const { withJoinToken } = await import("../config/join-token.ts");
  withJoinToken(config);
  for (const warning of warnings) process.stderr.write(`gpunode: warning: ${warning}\n`);
  print(`${file ?? "No configuration file; the defaults and the environment"}: right\n`);
}

async function show(options: AskOptions): Promise<void> {
  const resolution = await resolve(options);
  const { settings, file, warnings } = resolution;
  const { policyInWords, ruleValue } = await import("../config/policy-in-words.ts");
  const machine = { cpus: Math.max(1, cpus().length), memoryMiB: Math.floor(totalmem() / 1024 / 1024) };
  const policy = policyInWords(resolution, machine);
  if (options.json === true) return printJson({ ...(file !== undefined && { file }), settings, policy, warnings });
  const { valueInWords } = await import("../config/load.ts");
  const columns = [{ title: "KEY" }, { title: "VALUE", shrinks: true as const }, { title: "FROM" }];
  const rows = settings.map(({ key, value, source }) => [key, valueInWords(value), source]);
  print(renderTable(columns, rows, optionsOf(process.stdout)));
  const titles = [{ title: "RULE" }, { title: "VALUE", shrinks: true as const }, { title: "MEANS" }, { title: "FROM" }];
  const rules = policy.map((rule) => [rule.rule, ruleValue(rule), rule.means, rule.source]);
  print(`\nWhat a workload may do here\n\n${renderTable(titles, rules, optionsOf(process.stdout))}`);
  for (const warning of warnings) process.stderr.write(`gpunode: warning: ${warning}\n`);
}

async function resolve({ config: file }: ConfigOptions) {
  const { resolveConfig } = await import("../config/load.ts");
  return resolveConfig({ env: process.env, ...(file !== undefined && { file }) });
}
