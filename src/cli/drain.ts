import type { Command } from "commander";
import { type AskOptions, daemonOf, withJson } from "./daemon-client.ts";
import { command, print, printJson, wholeNumber } from "./outcome.ts";
import { stateOf } from "./resume.ts";

export function registerDrain(program: Command): void {
  withJson(program.command("drain"))
    .description("accept nothing new and give back what runs, until resume")
    .option("--grace-seconds <seconds>", "time each workload gets to end (default: what it asked for)")
    .option("--maintenance", "and then let go of the GPUs, so that their driver can be changed")
    .action(command(drain));
}

async function drain(options: AskOptions & { graceSeconds?: string; maintenance?: true }): Promise<void> {
  const { graceSeconds: text, maintenance = false } = options;
  const grace = text === undefined ? {} : { graceSeconds: wholeNumber("--grace-seconds", text) };
  const holds = await (await daemonOf(options)).drain({ ...grace, maintenance });
  if (options.json === true) printJson({ state: stateOf(holds), holds });
  else if (maintenance) {
    print(
      'Draining: nothing new is accepted and what runs is given back; then the GPUs are let go of ("gpunode status" tells when). "gpunode resume" lifts it.\n',
    );
  } else print('Draining: nothing new is accepted and what runs is given back. "gpunode resume" lifts it.\n');
}
