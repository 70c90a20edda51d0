/** Exit codes of every command. */
export const EXIT = { done: 0, failed: 1, usage: 2, notRunning: 3, interrupted: 130, badConfiguration: 78 } as const;

/** What each says, in a word or two. */
export const EXIT_WORDS: Readonly<Record<keyof typeof EXIT, string>> = {
  done: "done",
  failed: "failed",
  usage: "usage",
  notRunning: "the daemon is not running",
  interrupted: "interrupted",
  badConfiguration: "bad configuration",
};

/** "0 done, 1 failed, …". */
export function exitCodesInWords(): string {
  const names = (Object.keys(EXIT) as (keyof typeof EXIT)[]).sort((a, b) => EXIT[a] - EXIT[b]);
  return names.map((name) => `${EXIT[name]} ${EXIT_WORDS[name]}`).join(", ");
}

/** The command line contradicts itself. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Errors that have an exit code of their own, by name: their classes are loaded with the commands that need them. */
const EXIT_BY_NAME: Record<string, number> = {
  UsageError: EXIT.usage,
  DaemonNotRunning: EXIT.notRunning,
  ConfigError: EXIT.badConfiguration,
  Interrupted: EXIT.interrupted,
};

/** Wraps a command: what it throws becomes a sentence on stderr and an exit code. */
export function command<A extends unknown[]>(
  action: (...args: A) => Promise<void> | void,
): (...args: A) => Promise<void> {
  return async (...args) => {
    try {
      await action(...args);
    } catch (error) {
      process.exitCode = report(error);
    }
  };
}

/** Tells the user what went wrong. Returns the exit code it calls for. */
export function report(error: unknown): number {
  const { name, message } = error instanceof Error ? error : { name: "", message: String(error) };
  for (const line of message.split("\n")) process.stderr.write(`gpunode: ${line}\n`);
  return EXIT_BY_NAME[name] ?? EXIT.failed;
}

export function print(text: string): void {
  process.stdout.write(text);
}

export function printJson(value: unknown): void {
  print(`${JSON.stringify(value, undefined, 2)}\n`);
}

/** Throws `UsageError` where `text` is none. */
export function wholeNumber(flag: string, text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new UsageError(`${flag} ${text}: expected a whole number`);
  return Number(text);
}
