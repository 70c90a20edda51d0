import { execFileSync } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** What the simulator prints for eight H100. */
export function simulated(simulator: string, ...args: string[]): string {
  return execFileSync(process.execPath, [simulator, ...args], {
    env: { ...process.env, GPUNODE_SIM_SCENARIO: "h100x8" },
    maxBuffer: 64 * 1024 * 1024,
  }).toString();
}

/** Makes `folder/nvidia-smi` the simulator itself, whose start is Node's. Returns its path. */
export function simulatorAsSmi(folder: string, simulator: string): string {
  return program(folder, `#!/bin/sh\nexec '${process.execPath}' '${simulator}' "$@"\n`);
}

/**
 * Makes `folder/nvidia-smi` a shell script that prints what the simulator printed for eight H100: one `cat` for each answer, and a
 * stream of sets `intervalMs` apart that needs no process beside the shell. What is measured with it is the reader, not Node's start.
 */
export function printedSmi(folder: string, simulator: string, intervalMs: number): string {
  const ask = (name: string, ...args: string[]) => writeFileSync(join(folder, name), simulated(simulator, ...args));
  ask("xml", "-q", "-x");
  ask("help", "--help-query-gpu");
  ask("topo", "topo", "-m");
  ask("caps", "--query-gpu=uuid,compute_cap", "--format=csv,noheader,nounits");
  return program(
    folder,
    `#!/bin/bash
D='${folder}'
[ -p $D/never ] || mkfifo $D/never
case "$*" in
  "-q -x") exec cat $D/xml ;;
  --help-query-gpu) exec cat $D/help ;;
  "topo -m") exec cat $D/topo ;;
  --query-gpu=uuid,compute_cap*) exec cat $D/caps ;;
  *-lms*)
    rows=$('${process.execPath}' '${simulator}' "$1" "$2")
    exec 9<> $D/never
    while printf '%s\\n' "$rows"; do read -r -t ${intervalMs / 1000} -u 9; done ;;
esac
exit 0
`,
  );
}

function program(folder: string, text: string): string {
  const path = join(folder, "nvidia-smi");
  writeFileSync(path, text);
  chmodSync(path, 0o755);
  return path;
}
