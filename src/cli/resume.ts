import type { Command } from "commander";
import { type AskOptions, daemonOf, withJson } from "./daemon-client.ts";
import { command, print, printJson } from "./outcome.ts";

export function registerResume(program: Command): void {
  withJson(program.command("resume")).description("accept workloads again").action(command(resume));
}

async function resume(options: AskOptions): Promise<void> {
  await (await daemonOf(options)).resume();
  if (options.json === true) printJson({ state: "available" });
  else print("Available: workloads are accepted again.\n");
}
