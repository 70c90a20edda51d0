import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { printable } from "../table.ts";

const UNIT = "gpunode.service";
/** The unit's own TimeoutStartSec is 90 s, and a stop comes before. */
const START_TIMEOUT_MS = 200_000;
const ASK_TIMEOUT_MS = 10_000;

/** How the daemon is run on this machine. */
export type Service =
  /** By nobody but its owner: there is no systemd, or it does not run here. */
  | { kind: "none" }
  /** systemd runs, and does not know the unit. */
  | { kind: "absent" }
  | { kind: "installed"; isActive: boolean };

/** Asks systemd. Never throws: where it does not answer, it is not there. */
export async function serviceHere(): Promise<Service> {
  // "offline" where the machine was not booted with it; exits with 1 also where some unit has failed.
  const { stdout: state } = await systemctl(["is-system-running"], ASK_TIMEOUT_MS);
  if (!/^(?:initializing|starting|running|degraded|maintenance|stopping)/.test(state)) return { kind: "none" };
  const { stdout } = await systemctl(["show", "--property=LoadState,ActiveState", UNIT], ASK_TIMEOUT_MS);
  if (!/^LoadState=(?:loaded|masked)$/m.test(stdout)) return { kind: "absent" };
  return { kind: "installed", isActive: /^ActiveState=(?:active|activating|reloading)$/m.test(stdout) };
}

/** What is run to take a new configuration into use; what works on the GPUs goes on. */
export function startCommands({ isActive }: { isActive: boolean }): string[][] {
  return isActive
    ? [
        ["enable", UNIT],
        ["restart", UNIT],
      ]
    : [
        ["reset-failed", UNIT],
        ["enable", "--now", UNIT],
      ];
}

/** Runs one of them, until it is done. Throws with systemd's own words. */
export async function runSystemctl(args: readonly string[], signal: AbortSignal): Promise<void> {
  const { code, stderr } = await systemctl(args, START_TIMEOUT_MS, signal);
  signal.throwIfAborted();
  // One that never ran has nothing to forget.
  if (code === 0 || args[0] === "reset-failed") return;
  const said = printable(stderr).trim();
  throw new Error(`systemctl ${args.join(" ")} failed: ${said || `exit code ${code}`}; "gpunode logs" says why`);
}

interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

async function systemctl(args: readonly string[], timeout: number, signal?: AbortSignal): Promise<Outcome> {
  const options = { timeout, env: { ...process.env, LC_ALL: "C" }, ...(signal !== undefined && { signal }) };
  try {
    return { code: 0, ...(await promisify(execFile)("systemctl", args, options)) };
  } catch (error) {
    const { code, stdout = "", stderr = "" } = error as { code?: unknown; stdout?: string; stderr?: string };
    return { code: typeof code === "number" ? code : -1, stdout, stderr };
  }
}
