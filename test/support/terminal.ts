import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

/** A terminal comes from script(1) of util-linux, which every Debian has. */
export const haveTerminal = spawnSync("script", ["--version"]).status === 0;

/** A program at a terminal of its own, and somebody who reads and types there. */
export interface AtTerminal extends AsyncDisposable {
  /** All that was shown so far, line ends as `\n`. */
  readonly shown: string;
  /** Waits until it is shown, behind what an earlier call has waited for. */
  until(text: string | RegExp): Promise<void>;
  type(text: string): void;
  /** The program's exit code. */
  ended: Promise<number>;
  /** Process id of script(1); the program is below it. */
  pid: number;
}

const PATIENCE_MS = 30_000;

/** Runs a shell command at a terminal. */
export function atTerminal(command: string, { cwd, env }: { cwd: string; env: NodeJS.ProcessEnv }): AtTerminal {
  const child = spawn("script", ["--quiet", "--return", "--flush", "--command", command, "/dev/null"], {
    cwd,
    env: { TERM: "xterm", ...env },
    stdio: ["pipe", "pipe", "inherit"],
  });
  let shown = "";
  let seen = 0;
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    shown += text.replaceAll("\r\n", "\n");
  });
  child.stdin.on("error", () => undefined);
  const ended = once(child, "close").then(([code]) => Number(code));
  return {
    get shown() {
      return shown;
    },
    async until(text) {
      const deadline = performance.now() + PATIENCE_MS;
      const find = () => {
        const rest = shown.slice(seen);
        const found =
          typeof text === "string" ? { index: rest.indexOf(text), length: text.length } : matchOf(text, rest);
        return found.index < 0 ? undefined : seen + found.index + found.length;
      };
      for (;;) {
        const end = find();
        if (end !== undefined) {
          seen = end;
          return;
        }
        if (performance.now() > deadline || child.exitCode !== null) {
          throw new Error(`${text} was not shown. It was:\n${shown}`);
        }
        await sleep(20);
      }
    },
    type: (text) => void child.stdin.write(text),
    ended,
    pid: child.pid ?? 0,
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
      await ended;
    },
  };
}

function matchOf(pattern: RegExp, text: string): { index: number; length: number } {
  const found = pattern.exec(text);
  return found === null ? { index: -1, length: 0 } : { index: found.index, length: found[0].length };
}
