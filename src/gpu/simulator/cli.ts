import { runAsCommand } from "./main.ts";

// Runs the simulator from its sources; the installed command is bin/nvidia-smi-sim.js.
await runAsCommand();
