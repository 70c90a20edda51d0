import type { Command } from "commander";
import { holdInWords, holdOn } from "../local/hold-words.ts";
import { type AskOptions, daemonOf, withJson } from "./daemon-client.ts";
import { namedGpus } from "./named-gpus.ts";
import { command, print, printJson } from "./outcome.ts";

export function registerResume(program: Command): void {
  withJson(program.command("resume"))
    .description("lend again what was drained or reclaimed")
    .option("--gpu <gpu...>", "only these, by index or UUID")
    .action(command(resume));
}

async function resume(options: AskOptions & { gpu?: string[] }): Promise<void> {
  const daemon = await daemonOf(options);
  const { gpu: gpus } = options;
  const holds = await daemon.resume(gpus === undefined ? {} : { gpus });
  if (options.json === true) return printJson({ state: stateOf(holds), holds });
  const lent = gpus === undefined ? "Available: workloads are accepted again." : `GPU ${gpus.join(", ")}: lent again.`;
  if (holds.length === 0) return print(`${lent}\n`);
  const snapshot = await daemon.status();
  const uuids = namedGpus(gpus, snapshot.gpus)?.map(({ uuid }) => uuid);
  const left =
    uuids === undefined ? holds : holds.filter((hold) => uuids.some((uuid) => holdOn(uuid, [hold]) !== undefined));
  if (left.length === 0) return print(`${lent}\n`);
  const indexOf = (uuid: string) => String(snapshot.gpus.find((gpu) => gpu.uuid === uuid)?.index ?? uuid);
  const rest = left.map((hold) => `  ${holdInWords(hold, indexOf, snapshot.at)}\n`).join("");
  print(`Still kept from being lent:\n${rest}`);
}

/** Whether anything at all is accepted. */
export function stateOf(holds: readonly { gpus?: readonly string[] }[]): "available" | "draining" {
  return holds.some(({ gpus }) => gpus === undefined) ? "draining" : "available";
}
