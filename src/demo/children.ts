import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** A child that has not ended so long after SIGTERM is killed. */
const END_WITHIN_MS = 15_000;

/** The demo's own processes: started from one command, ended in reverse order, each with its output in a file. */
export class Children implements AsyncDisposable {
  readonly #command: readonly string[];
  readonly #dir: string;
  readonly #running: { name: string; child: ChildProcess; log: string }[] = [];

  /** `command`: program and first arguments all of them share. `dir`: where their output goes. */
  constructor(command: readonly string[], dir: string) {
    this.#command = command;
    this.#dir = dir;
  }

  start(name: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): void {
    const log = join(this.#dir, `${name}.log`);
    const [program = "", ...first] = this.#command;
    const child = spawn(program, [...first, ...args], {
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const file = createWriteStream(log);
    child.stdout.pipe(file, { end: false });
    child.stderr.pipe(file, { end: false });
    child.once("close", () => file.end());
    this.#running.push({ name, child, log });
  }

  /** Throws with the end of its output where one of them has ended. */
  async requireAlive(): Promise<void> {
    for (const { name, child, log } of this.#running) {
      if (child.exitCode === null && child.signalCode === null) continue;
      const said = (await readFile(log, "utf8").catch(() => "")).trim().split("\n").slice(-5).join("\n");
      throw new Error(`${name} ended with code ${child.exitCode ?? child.signalCode}:\n${said}`);
    }
  }

  /** Runs one command to its end and returns what it printed. */
  async run(args: readonly string[]): Promise<string> {
    const [program = "", ...first] = this.#command;
    const child = spawn(program, [...first, ...args], { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
    await once(child, "close");
    return text;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { child } of this.#running.toReversed()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const closed = once(child, "close");
      child.kill("SIGTERM");
      const patience = new AbortController();
      const late = sleep(END_WITHIN_MS, true, { signal: patience.signal }).catch(() => false);
      if (await Promise.race([closed.then(() => false), late])) child.kill("SIGKILL");
      patience.abort();
      await closed;
    }
  }
}
