#!/usr/bin/env node
import { runAsCommand } from "../dist/nvidia-smi-sim.js";

await runAsCommand();
