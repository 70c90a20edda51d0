import { followCommandLine } from "./command-line.ts";
import { UsageError } from "./outcome.ts";
import { gpunodeProgram } from "./program.ts";

// The `gpunode` command. What a command needs is loaded when it runs. The daemon is a program of its own (daemon-main.ts): bin/gpunode.js
// starts it where the first word is "run".
const daemon = () => Promise.reject(new UsageError('"run" has to be the first word: gpunode run [options]'));
await followCommandLine(gpunodeProgram(daemon));
