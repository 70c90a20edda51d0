import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Command } from "commander";
import type { HostInfo } from "../protocol/frames.ts";
import { command, printJson } from "./outcome.ts";

const COMMAND = "__host-details";
/** systeminformation starts processes of its own; where one of them hangs, the machine is told without its answers. */
const TIMEOUT_MS = 10_000;
const MOST_BYTES = 64 * 1024;

/** The hidden command that `askHostDetails` starts. */
export function registerHostDetails(program: Command): void {
  program.command(COMMAND, { hidden: true }).action(
    command(async () => {
      const { hostDetails } = await import("../host/details.ts");
      printJson(await hostDetails());
    }),
  );
}

/** What systeminformation tells of this machine, asked in a process that ends with `signal`. Rejects where it does not answer. */
export async function askHostDetails(signal: AbortSignal): Promise<Pick<HostInfo, "os" | "kernel" | "cpuModel">> {
  const { stdout } = await promisify(execFile)(process.execPath, [process.argv[1] ?? "", COMMAND], {
    signal,
    timeout: TIMEOUT_MS,
    killSignal: "SIGKILL",
    maxBuffer: MOST_BYTES,
  });
  // The schemas come with the daemon; the other commands, which load this file too, do without.
  const frames = await import("../protocol/frames.ts");
  return frames.HostInfo.pick({ os: true, kernel: true, cpuModel: true }).parse(JSON.parse(stdout));
}
