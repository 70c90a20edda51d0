import { createInterface } from "node:readline";
import { Writable } from "node:stream";

/** The user ended it: Ctrl-C, Ctrl-D, or a signal. Exit code 130, as shells have it for Ctrl-C. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
}

/** Somebody who can be asked. Disposing gives the terminal back as it was. */
export interface Terminal extends Disposable {
  /** Aborts with `Interrupted` at Ctrl-C, also while nothing is asked, and with the signal it was opened with. */
  readonly signal: AbortSignal;
  /** One line, without blanks around it. `hidden`: nothing of it is shown. Rejects with `Interrupted`. */
  ask(question: string, options?: { hidden?: boolean }): Promise<string>;
}

/**
 * Asks on a terminal. Node's readline keeps it in raw mode meanwhile, so that nothing is echoed but by us: what is typed where nobody asked, or
 * where it is hidden, is not seen. Such lines are no answers either: Enter, pressed in impatience, must not agree to what comes next.
 */
export function openTerminal(input: NodeJS.ReadStream, output: NodeJS.WriteStream, until: AbortSignal): Terminal {
  let isMuted = true;
  const shown = new Writable({
    write(chunk, _encoding, done) {
      if (!isMuted) output.write(chunk);
      done();
    },
  });
  // readline wraps long lines by it.
  Object.defineProperty(shown, "columns", { get: () => output.columns });
  const lines = createInterface({ input, output: shown, terminal: true, historySize: 0 });
  const stop = new AbortController();
  let waiting: PromiseWithResolvers<string> | undefined;
  const interrupt = () => {
    const interrupted = new Interrupted("interrupted");
    stop.abort(interrupted);
    waiting?.reject(interrupted);
  };
  lines.on("SIGINT", interrupt).on("close", interrupt);
  until.addEventListener("abort", interrupt, { once: true });
  lines.on("line", (line) => waiting?.resolve(line));
  return {
    signal: stop.signal,
    async ask(question, { hidden = false } = {}) {
      stop.signal.throwIfAborted();
      waiting = Promise.withResolvers();
      // What stands there half typed was typed before the question.
      lines.write(null, { ctrl: true, name: "e" });
      lines.write(null, { ctrl: true, name: "u" });
      isMuted = false;
      lines.setPrompt(question);
      lines.prompt();
      isMuted = hidden;
      try {
        return (await waiting.promise).trim();
      } finally {
        // The line's own end is hidden as well, and an interrupted one has none.
        if (hidden || stop.signal.aborted) output.write("\n");
        isMuted = true;
        waiting = undefined;
      }
    },
    [Symbol.dispose]() {
      until.removeEventListener("abort", interrupt);
      lines.off("close", interrupt);
      lines.close();
    },
  };
}
