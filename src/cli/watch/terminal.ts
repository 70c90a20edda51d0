import { emitKeypressEvents } from "node:readline";
import type { ReadStream, WriteStream } from "node:tty";
import type { Key } from "./keys.ts";
import type { Line } from "./line.ts";
import { createPainter } from "./paint.ts";

/** The second screen, so that what was there comes back; no cursor; no wrapping, so that a line misjudged harms no other. */
const ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE = "\x1b[?2026l\x1b[m\x1b[?7h\x1b[?25h\x1b[?1049l";
/** A terminal that does not tell its size. */
const USUAL_SIZE = { columns: 80, rows: 24 };
/** Whoever is not stopped by then will not be: nobody is there to go on with it (`ssh host gpunode …`). */
const STOPPED_WITHIN_MS = 100;

export interface TerminalOptions {
  stdout: WriteStream;
  /** Where keys come from; undefined: there are none. */
  stdin: ReadStream | undefined;
  color: boolean;
  onKey(key: Key): void;
  /** What was shown is gone, or the window has another size. */
  onRedraw(): void;
  /** SIGINT, SIGTERM or SIGHUP. */
  onEnd(): void;
}

/** The whole window. Disposing of it, or the end of the process by any way it can notice, puts the terminal back as it was. */
export interface Terminal extends Disposable {
  size(): { columns: number; rows: number };
  /** Writes what is different from what is shown; nothing while it is stopped. */
  show(lines: readonly Line[]): void;
  /** What is on the screen is not to be relied on. */
  forget(): void;
  /** Gives the terminal back to the shell until it says to go on (SIGCONT). */
  suspend(): void;
  readonly isSuspended: boolean;
}

/**
 * Takes over the terminal. States: entered (ours), suspended (the shell's, until SIGCONT), left (for good). Leaving is tied to `exit` and to
 * uncaught exceptions too, whose message is to be seen.
 */
export function openTerminal({ stdout, stdin, color, onKey, onRedraw, onEnd }: TerminalOptions): Terminal {
  const painter = createPainter({ color });
  let state: "entered" | "suspended" | "left" = "left";

  const enter = () => {
    state = "entered";
    painter.forget();
    stdout.write(ENTER);
    // The shell has set its own mode meanwhile, and setting the one that is thought to be set does nothing.
    stdin?.setRawMode(false).setRawMode(true).resume();
  };
  const leave = (next: "suspended" | "left") => {
    if (state === "entered") {
      stdin?.setRawMode(false).pause();
      stdout.write(LEAVE);
    }
    state = next;
  };
  const leaveForGood = () => leave("left");
  const proceed = () => {
    if (state === "left") return;
    process.removeListener("SIGTSTP", suspend).on("SIGTSTP", suspend);
    enter();
    onRedraw();
  };
  const suspend = () => {
    if (state !== "entered") return;
    leave("suspended");
    process.removeListener("SIGTSTP", suspend);
    // All of the job, as Ctrl-Z does: where an older Node has started this one, the shell waits for that.
    process.kill(0, "SIGTSTP");
    setTimeout(() => {
      if (state === "suspended") proceed();
    }, STOPPED_WITHIN_MS);
  };
  const resized = () => {
    painter.forget();
    onRedraw();
  };
  const key = (_: string | undefined, pressed: Key) => onKey(pressed);

  const ending = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of ending) process.on(signal, onEnd);
  process.on("SIGTSTP", suspend).on("SIGCONT", proceed);
  process.on("exit", leaveForGood).on("uncaughtExceptionMonitor", leaveForGood);
  stdout.on("resize", resized);
  if (stdin !== undefined) {
    emitKeypressEvents(stdin);
    stdin.on("keypress", key);
  }
  enter();

  return {
    size: () => ({ columns: stdout.columns || USUAL_SIZE.columns, rows: stdout.rows || USUAL_SIZE.rows }),
    show(lines) {
      if (state !== "entered") return;
      const bytes = painter.next(lines);
      if (bytes !== "") stdout.write(bytes);
    },
    forget: () => painter.forget(),
    suspend,
    get isSuspended() {
      return state === "suspended";
    },
    [Symbol.dispose]() {
      leaveForGood();
      for (const signal of ending) process.removeListener(signal, onEnd);
      process.removeListener("SIGTSTP", suspend).removeListener("SIGCONT", proceed);
      process.removeListener("exit", leaveForGood).removeListener("uncaughtExceptionMonitor", leaveForGood);
      stdout.removeListener("resize", resized);
      stdin?.removeListener("keypress", key);
    },
  };
}
