import { join } from "node:path";
import type { Command } from "commander";
import { simulatorProgram } from "./installation.ts";
import { command, EXIT, print } from "./outcome.ts";
import { packageRoot } from "./package-root.ts";

export function registerDemo(program: Command): void {
  program
    .command("demo")
    .description("the whole job on this machine: a coordinator, this node, three containers; nothing stays behind")
    .action(command(demo));
}

async function demo(): Promise<void> {
  const [{ runDemo }, { createSmi }] = await Promise.all([
    import("../demo/demo.ts"),
    import("../gpu/nvidia/runner.ts"),
  ]);
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => stop.abort());
  const root = packageRoot();
  const listing = await createSmi({ path: "nvidia-smi" }).run(["-L"]);
  try {
    const succeeded = await runDemo({
      gpunode: [process.execPath, join(root, "bin/gpunode.js")],
      simulator: simulatorProgram(),
      hasGpus: listing.ok && /^GPU \d+:/m.test(listing.stdout),
      say: (line) => print(`${line}\n`),
      signal: stop.signal,
    });
    print(
      succeeded
        ? "\nTwo jobs done, one GPU taken back; nothing is left behind.\n"
        : "\nA job did not end as it should.\n",
    );
    if (!succeeded) process.exitCode = EXIT.failed;
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    print("\nInterrupted; nothing is left behind.\n");
    process.exitCode = EXIT.failed;
  } finally {
    process.removeAllListeners("SIGINT").removeAllListeners("SIGTERM");
  }
}
