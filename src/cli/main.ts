import { followCommandLine } from "./command-line.ts";
import { gpunodeProgram } from "./program.ts";

// The `gpunode` command. What a command needs is loaded when it runs: `status` does not pay for the daemon.
await followCommandLine(gpunodeProgram(() => import("./daemon-main.ts")));
