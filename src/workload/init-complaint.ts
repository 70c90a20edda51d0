import type { ContainerState, Engine } from "./needs.ts";
import { isUp } from "./plan.ts";

/** tini's exit codes where it cannot run the command: 127 for one that is not there, 126 for all else. */
const CODES: ReadonlySet<number> = new Set([126, 127]);
/** Its last words on stderr (tini 0.18 and 0.19, which Debian and Docker ship as docker-init). */
const WORDS = /\[FATAL tini \(\d+\)\] exec (.{1,1000}?) failed: (.{1,200})/;
const TAIL_LINES = 5;
/** The words are short; a container that wrote more than this in its last lines has said something else. */
const TAIL_MOST_BYTES = 8 * 1024;

/**
 * Why a container's command could not be run. With an init process in it that is no failed start for the engine: the container runs, and
 * ends at once with the init's complaint. undefined where it ended in any other way, or its output cannot be had.
 */
export async function initComplaint(
  container: ContainerState | undefined,
  engine: Pick<Engine, "logs">,
  signal: AbortSignal,
): Promise<{ reason: string; message: string } | undefined> {
  if (container === undefined || isUp(container) || !CODES.has(container.exitCode)) return undefined;
  let text = "";
  try {
    for await (const { data, stream } of engine.logs(container.id, { follow: false, tail: TAIL_LINES, signal })) {
      if (stream === "stderr") text += data.toString("utf8");
      if (text.length > TAIL_MOST_BYTES) return undefined;
    }
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
  const [, command, why] = WORDS.exec(text) ?? [];
  if (command === undefined) return undefined;
  return container.exitCode === 127
    ? {
        reason: "command_not_found",
        message: `the image has no such command: check command and entrypoint (${command}: ${why})`,
      }
    : { reason: "start_failed", message: `the command could not be run (${command}: ${why})` };
}
