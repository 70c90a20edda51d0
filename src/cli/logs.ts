import { once } from "node:events";
import type { Command } from "commander";
import { type ConfigOptions, daemonOf, withConfig } from "./daemon-client.ts";
import { command, wholeNumber } from "./outcome.ts";
import { optionsOf } from "./table.ts";

/** More than a person reads at once, and what happened last is in it. */
const DAEMON_TAIL = 200;

export function registerLogs(program: Command): void {
  withConfig(program.command("logs"))
    .description("what a workload wrote; without one, the daemon's own log from the journal")
    .argument("[id]", "the workload")
    .option("-f, --follow", "go on until it ends")
    .option(
      "-n, --tail <lines>",
      `only the last so many lines (default: all of a workload, ${DAEMON_TAIL} of the daemon)`,
    )
    .action(command(logs));
}

async function logs(id: string | undefined, options: ConfigOptions & { follow?: true; tail?: string }): Promise<void> {
  const follow = options.follow === true;
  const tail = options.tail === undefined ? undefined : wholeNumber("--tail", options.tail);
  if (id === undefined) {
    const { showDaemonLog } = await import("./daemon-log.ts");
    return await showDaemonLog({ follow, tail: tail ?? DAEMON_TAIL }, optionsOf(process.stdout));
  }
  const daemon = await daemonOf(options);
  for await (const { stream, data } of daemon.logs(id, { follow, ...(tail !== undefined && { tail }) })) {
    const target = process[stream];
    if (!target.write(data)) await once(target, "drain");
  }
}
