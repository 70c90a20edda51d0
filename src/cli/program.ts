import type { Command } from "commander";
import { emptyProgram } from "./command-line.ts";
import { registerCompletion, registerWords } from "./completion.ts";
import { registerConfig } from "./config.ts";
import { registerCoordinator } from "./coordinator.ts";
import { registerDemo } from "./demo.ts";
import { registerDoctor } from "./doctor.ts";
import { registerDrain } from "./drain.ts";
import { registerEnroll } from "./enroll.ts";
import { registerGpus } from "./gpus.ts";
import { registerHostDetails } from "./host-details-command.ts";
import { registerLogs } from "./logs.ts";
import { registerReclaim } from "./reclaim.ts";
import { registerResume } from "./resume.ts";
import { registerRun } from "./run.ts";
import { registerSampling } from "./sampling.ts";
import { registerService } from "./service.ts";
import { registerStatus } from "./status.ts";
import { registerSupportBundle } from "./support-bundle.ts";
import { registerUsage } from "./usage.ts";
import { registerWorkloads } from "./workloads.ts";

/** All commands there are, with their options; nothing runs before it is parsed. `daemon` goes on as the daemon, where that is asked for. */
export function gpunodeProgram(daemon: () => Promise<void>): Command {
  const program = emptyProgram();
  registerRun(program, daemon);
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
