import type { Command } from "commander";
import { type AskOptions, daemonOf, withJson } from "./daemon-client.ts";
import { command, print, printJson } from "./outcome.ts";

export function registerSampling(program: Command): void {
  withJson(program.command("pause-sampling"))
    .description("let go of the GPUs so that their driver can be changed; until resume-sampling or a reboot")
    .action(command(pause));
  withJson(program.command("resume-sampling")).description("read the GPUs again").action(command(resume));
}

async function pause(options: AskOptions): Promise<void> {
  const daemon = await daemonOf(options);
  await daemon.pauseSampling();
  const { workloads } = await daemon.status();
  const holders = workloads.filter(
    ({ gpus, state }) => gpus.length > 0 && ["starting", "running", "stopping"].includes(state),
  );
  if (options.json === true) return printJson({ sampling: "paused", holders: holders.map(({ id }) => id) });
  print('gpunode has let go of the GPUs, and gives none out meanwhile. "gpunode resume-sampling" reads them again.\n');
  if (holders.length === 0) return;
  print(
    `Held by ${holders.map(({ id }) => id).join(", ")}: the driver cannot be unloaded while these run. "gpunode drain --maintenance" ends them, with notice.\n`,
  );
}

async function resume(options: AskOptions): Promise<void> {
  await (await daemonOf(options)).resumeSampling();
  if (options.json === true) printJson({ sampling: "running" });
  else print("The GPUs are read again.\n");
}
