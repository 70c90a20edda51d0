import { once } from "node:events";
import type { Command } from "commander";
import { type ConfigOptions, daemonOf, withConfig } from "./daemon-client.ts";
import { command, wholeNumber } from "./outcome.ts";

export function registerLogs(program: Command): void {
  withConfig(program.command("logs"))
    .description("what a workload wrote")
    .argument("<id>", "the workload")
    .option("-f, --follow", "go on until it ends")
    .option("--tail <lines>", "only the last so many lines")
    .action(command(logs));
}

async function logs(id: string, options: ConfigOptions & { follow?: true; tail?: string }): Promise<void> {
  const tail = options.tail === undefined ? {} : { tail: wholeNumber("--tail", options.tail) };
  const daemon = await daemonOf(options);
  for await (const { stream, data } of daemon.logs(id, { follow: options.follow === true, ...tail })) {
    const target = process[stream];
    if (!target.write(data)) await once(target, "drain");
  }
}
