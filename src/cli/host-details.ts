import { execFile } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import * as z from "zod";
import type { HostInfo } from "../protocol/agent-frames.ts";
import { HOST_DETAILS } from "./host-details-command.ts";

/** The GPUs are advertised before: what the machine is called has time, and finding it out takes a process. */
const AFTER_MS = 1_000;
/** systeminformation starts processes of its own; where one of them hangs, the machine is told without its answers. */
const TIMEOUT_MS = 10_000;
const MOST_BYTES = 64 * 1024;
const Details = z.object({
  os: z.string().exactOptional(),
  kernel: z.string().exactOptional(),
  cpuModel: z.string().exactOptional(),
});

/** What systeminformation tells of this machine, asked in a process that ends with `signal`. Rejects where it does not answer. */
export async function askHostDetails(signal: AbortSignal): Promise<Pick<HostInfo, "os" | "kernel" | "cpuModel">> {
  await sleep(AFTER_MS, undefined, { signal });
  const { stdout } = await promisify(execFile)(process.execPath, [process.argv[1] ?? "", HOST_DETAILS], {
    signal,
    timeout: TIMEOUT_MS,
    killSignal: "SIGKILL",
    maxBuffer: MOST_BYTES,
  });
  return Details.parse(JSON.parse(stdout));
}
