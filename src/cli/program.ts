import { Command } from "commander";
import { registerCompletion, registerWords } from "./completion.ts";
import { registerConfig } from "./config.ts";
import { registerCoordinator } from "./coordinator.ts";
import { registerDemo } from "./demo.ts";
import { registerDoctor } from "./doctor.ts";
import { registerDrain } from "./drain.ts";
import { registerEnroll } from "./enroll.ts";
import { registerGpus } from "./gpus.ts";
import { registerHostDetails } from "./host-details.ts";
import { registerLogs } from "./logs.ts";
import { exitCodesInWords } from "./outcome.ts";
import { registerReclaim } from "./reclaim.ts";
import { registerResume } from "./resume.ts";
import { registerRun } from "./run.ts";
import { registerSampling } from "./sampling.ts";
import { registerService } from "./service.ts";
import { registerStatus } from "./status.ts";
import { registerSupportBundle } from "./support-bundle.ts";
import { registerUsage } from "./usage.ts";
import { gpunodeVersion } from "./version.ts";
import { registerWorkloads } from "./workloads.ts";

/** All commands there are, with their options; nothing runs before it is parsed. */
export function gpunodeProgram(): Command {
  const program = new Command("gpunode")
    .description("Lend this machine's GPUs to a coordinator, and take them back at any moment.")
    .version(gpunodeVersion(), "-V, --version")
    .showHelpAfterError('Run "gpunode --help" to see what there is.')
    .exitOverride()
    .addHelpText(
      "after",
      `\nExit codes: ${exitCodesInWords()}.\nConfiguration: /etc/gpunode/config.toml, or --config FILE.`,
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
  registerSupportBundle(program);
  registerCoordinator(program);
  registerDemo(program);
  registerCompletion(program);
  registerWords(program);
  registerHostDetails(program);
  return program;
}
