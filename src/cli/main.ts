import { Command, CommanderError } from "commander";
import { registerConfig } from "./config.ts";
import { registerCoordinator } from "./coordinator.ts";
import { registerDemo } from "./demo.ts";
import { registerDoctor } from "./doctor.ts";
import { registerDrain } from "./drain.ts";
import { registerEnroll } from "./enroll.ts";
import { registerGpus } from "./gpus.ts";
import { registerLogs } from "./logs.ts";
import { EXIT, report } from "./outcome.ts";
import { registerReclaim } from "./reclaim.ts";
import { registerResume } from "./resume.ts";
import { registerRun } from "./run.ts";
import { registerSampling } from "./sampling.ts";
import { registerService } from "./service.ts";
import { registerStatus } from "./status.ts";
import { registerUsage } from "./usage.ts";
import { gpunodeVersion } from "./version.ts";
import { registerWorkloads } from "./workloads.ts";

/** The `gpunode` command. What a command needs is loaded when it runs: `status` does not pay for the daemon. */
async function main(): Promise<void> {
  // "gpunode logs ID | head" is no failure.
  process.stdout.on("error", (error: NodeJS.ErrnoException) =>
    process.exit(error.code === "EPIPE" ? EXIT.done : EXIT.failed),
  );
  const program = new Command("gpunode")
    .description("Lend this machine's GPUs to a coordinator, and take them back at any moment.")
    .version(gpunodeVersion(), "-V, --version")
    .showHelpAfterError('Run "gpunode --help" to see what there is.')
    .exitOverride()
    .addHelpText(
      "after",
      "\nExit codes: 0 done, 1 failed, 2 usage, 3 the daemon is not running, 78 bad configuration.\nConfiguration: /etc/gpunode/config.toml, or --config FILE.",
    );
  registerRun(program);
  registerStatus(program);
  registerGpus(program);
  registerWorkloads(program);
  registerLogs(program);
  registerReclaim(program);
  registerDrain(program);
  registerResume(program);
  registerUsage(program);
  registerSampling(program);
  registerEnroll(program);
  registerDoctor(program);
  registerConfig(program);
  registerService(program);
  registerCoordinator(program);
  registerDemo(program);
  try {
    await program.parseAsync();
  } catch (error) {
    if (!(error instanceof CommanderError)) process.exitCode = report(error);
    // Commander has said what was wrong; a help that was asked for is no error.
    else process.exitCode = error.exitCode === 0 ? EXIT.done : EXIT.usage;
  }
}

await main();
