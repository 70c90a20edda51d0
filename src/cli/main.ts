import { CommanderError } from "commander";
import { EXIT, report } from "./outcome.ts";
import { gpunodeProgram } from "./program.ts";

/** The `gpunode` command. What a command needs is loaded when it runs: `status` does not pay for the daemon. */
async function main(): Promise<void> {
  // "gpunode logs ID | head" is no failure.
  process.stdout.on("error", (error: NodeJS.ErrnoException) =>
    process.exit(error.code === "EPIPE" ? EXIT.done : EXIT.failed),
  );
  try {
    await gpunodeProgram().parseAsync();
  } catch (error) {
    if (!(error instanceof CommanderError)) process.exitCode = report(error);
    // Commander has said what was wrong; a help that was asked for is no error.
    else process.exitCode = error.exitCode === 0 ? EXIT.done : EXIT.usage;
  }
}

await main();
