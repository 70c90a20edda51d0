import type { Command } from "commander";
import { type ConfigOptions, withConfig } from "./daemon-client.ts";
import { command, print } from "./outcome.ts";
import { Interrupted } from "./terminal.ts";

export function registerSupportBundle(program: Command): void {
  withConfig(program.command("support-bundle"))
    .description("collect what somebody needs who is to help: one file, without secrets; works without the daemon, too")
    .option("--output <file>", "where to put it (default: gpunode-support-HOST-TIME.tar.gz here)")
    .action(command(supportBundle));
}

async function supportBundle({ config: file, output }: ConfigOptions & { output?: string }): Promise<void> {
  const [{ resolveConfig }, { makeBundle }, { bundleInWords }] = await Promise.all([
    import("../config/load.ts"),
    import("./support/bundle.ts"),
    import("./support/bundle-words.ts"),
  ]);
  const resolution = await resolveConfig({ env: process.env, ...(file !== undefined && { file }) }).catch(
    (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
  );
  print("Collecting; that takes some seconds, up to two minutes where something does not answer …\n");
  const stop = new AbortController();
  const end = () => stop.abort(new Interrupted("interrupted; nothing was written"));
  process.once("SIGINT", end).once("SIGTERM", end);
  const bundle = await makeBundle({ resolution, file, signal: stop.signal, ...(output !== undefined && { output }) });
  print(bundleInWords(bundle));
}
