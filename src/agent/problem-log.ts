import type { Logger } from "pino";
import type { Problem } from "../protocol/agent-frames.ts";

export interface ProblemLog extends Disposable {
  /** Something on the node has changed: its problems are looked at soon, once for all that changes until then. */
  changed(): void;
}

/**
 * Writes each problem of the node to the log: once when it comes, and once when it has gone. The rooms that have problems only tell them, so
 * none is written twice. `told` has been written already. Looks for the first time at once.
 */
export function problemLog(
  problems: () => readonly Problem[],
  { log, told }: { log: Pick<Logger, "info" | "warn">; told: readonly Problem[] },
): ProblemLog {
  let known = [...told];
  let soon: NodeJS.Immediate | undefined;
  const look = () => {
    soon = undefined;
    const now = problems();
    for (const { code, message } of now) {
      if (!known.some((before) => before.code === code && before.message === message)) log.warn({ code }, message);
    }
    for (const { code, message } of known) {
      // One that is told in other words, with other figures, has not gone.
      if (!now.some((standing) => standing.code === code)) log.info({ code }, `no longer so: ${message}`);
    }
    known = [...now];
  };
  look();
  return {
    changed() {
      soon ??= setImmediate(look);
    },
    [Symbol.dispose]() {
      clearImmediate(soon);
    },
  };
}
