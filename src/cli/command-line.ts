import { Command, CommanderError } from "commander";
import { EXIT, exitCodesInWords, report } from "./outcome.ts";
import { gpunodeVersion } from "./version.ts";

/** `gpunode` without any command. */
export function emptyProgram(): Command {
  return new Command("gpunode")
    .description("Lend this machine's GPUs to a coordinator, and take them back at any moment.")
    .version(gpunodeVersion(), "-V, --version")
    .showHelpAfterError('Run "gpunode --help" to see what there is.')
    .exitOverride()
    .addHelpText(
      "after",
      `\nExit codes: ${exitCodesInWords()}.\nConfiguration: /etc/gpunode/config.toml, or --config FILE.`,
    );
}

/** Does what the command line says; what goes wrong becomes a sentence and an exit code. */
export async function followCommandLine(program: Command): Promise<void> {
  // "gpunode logs ID | head" is no failure.
  process.stdout.on("error", (error: NodeJS.ErrnoException) =>
    process.exit(error.code === "EPIPE" ? EXIT.done : EXIT.failed),
  );
  try {
    await program.parseAsync();
  } catch (error) {
    if (!(error instanceof CommanderError)) process.exitCode = report(error);
    // Commander has said what was wrong; a help that was asked for is no error.
    else process.exitCode = error.exitCode === 0 ? EXIT.done : EXIT.usage;
  }
}
