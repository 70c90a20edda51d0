import { join } from "node:path";

/** Where the daemon with this `run_dir` listens. */
export function socketPathIn(runDir: string): string {
  return join(runDir, "gpunode.sock");
}
