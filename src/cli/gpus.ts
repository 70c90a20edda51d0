import type { Command } from "commander";
import { type AskOptions, withJson } from "./daemon-client.ts";
import { gpusInWords } from "./gpus-view.ts";
import { command, EXIT, print, printJson } from "./outcome.ts";
import { optionsOf } from "./table.ts";

export function registerGpus(program: Command): void {
  withJson(program.command("gpus"))
    .description("read the GPUs now, without the daemon: what they are and can do")
    .action(command(gpus));
}

async function gpus(options: AskOptions): Promise<void> {
  const [{ loadConfig }, { readInventory }, { createSmi }] = await Promise.all([
    import("../config/load.ts"),
    import("../gpu/nvidia/inventory.ts"),
    import("../gpu/nvidia/runner.ts"),
  ]);
  const { config: file } = options;
  const config = await loadConfig({ env: process.env, ...(file !== undefined && { file }) });
  const { signal } = new AbortController();
  const { gpus: found, problems } = await readInventory(createSmi({ path: config.nvidia.smi }), { signal });
  if (found.length === 0 && problems.length > 0) throw new Error(problems.map(({ message }) => message).join("\n"));
  if (options.json === true) printJson(found);
  else print(found.length === 0 ? "nvidia-smi sees no GPU.\n" : gpusInWords(found, optionsOf(process.stdout)));
  for (const { message } of problems) process.stderr.write(`gpunode: ${message}\n`);
  // Some of it was read, not all: scripts shall notice.
  if (problems.length > 0) process.exitCode = EXIT.failed;
}
