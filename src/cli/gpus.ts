import type { Command } from "commander";
import { type AskOptions, withJson } from "./daemon-client.ts";
import { gpusInWords } from "./gpus-view.ts";
import { command, print, printJson } from "./outcome.ts";
import { optionsOf } from "./table.ts";

export function registerGpus(program: Command): void {
  withJson(program.command("gpus"))
    .description("read the GPUs now, without the daemon: what they are and can do")
    .action(command(gpus));
}

async function gpus(options: AskOptions): Promise<void> {
  const [{ loadConfig }, { readInventory }] = await Promise.all([
    import("../config/load.ts"),
    import("../gpu/nvidia/inventory.ts"),
  ]);
  const { config: file } = options;
  const config = await loadConfig({ env: process.env, ...(file !== undefined && { file }) });
  const list = await readInventory(config.nvidia.smi);
  if (options.json === true) printJson(list);
  else print(list.length === 0 ? "nvidia-smi sees no GPU.\n" : gpusInWords(list, optionsOf(process.stdout)));
}
