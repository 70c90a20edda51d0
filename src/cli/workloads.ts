import type { Command } from "commander";
import { type AskOptions, daemonOf, withJson } from "./daemon-client.ts";
import { command, print, printJson } from "./outcome.ts";
import { workloadTable } from "./status-view.ts";
import { optionsOf } from "./table.ts";

export function registerWorkloads(program: Command): void {
  withJson(program.command("workloads"))
    .description("workloads on this node, those that ended included")
    .action(command(workloads));
}

async function workloads(options: AskOptions): Promise<void> {
  const snapshot = await (await daemonOf(options)).status();
  if (options.json === true) printJson(snapshot.workloads);
  else print(snapshot.workloads.length === 0 ? "No workloads.\n" : workloadTable(snapshot, optionsOf(process.stdout)));
}
