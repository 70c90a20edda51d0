import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, readlinkSync } from "node:fs";
import xterm from "@xterm/headless";
import { patiently } from "../agent/rig.ts";

/** A terminal of `columns` × `rows` that a person could sit at: a real pseudoterminal (`script`), and xterm to see what is on it. */
export class Pty implements AsyncDisposable {
  readonly #script: ChildProcess;
  readonly #screen: xterm.Terminal;
  /** All that the program wrote. */
  bytes = "";
  /** Resolves with the exit code of the program. */
  readonly ended: Promise<number | null>;

  /** `command` is the shell's. */
  constructor(
    command: string,
    { columns = 80, rows = 24, env = {} }: { columns?: number; rows?: number; env?: NodeJS.ProcessEnv },
  ) {
    this.#screen = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true });
    this.#script = spawn("script", ["-qfec", `stty rows ${rows} cols ${columns}; ${command}`, "/dev/null"], {
      env: {
        ...process.env,
        TERM: "xterm-256color",
        LANG: "C.UTF-8",
        LC_ALL: "",
        NO_COLOR: "",
        ...env,
        SHELL: "/bin/sh",
      },
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#script.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
      this.bytes += chunk;
      this.#screen.write(chunk);
    });
    this.ended = once(this.#script, "close").then(([code]) => code as number | null);
  }

  /** The lines that are on the screen, without spaces at their ends. */
  get lines(): string[] {
    const { active } = this.#screen.buffer;
    return Array.from({ length: this.#screen.rows }, (_, row) =>
      (active.getLine(active.viewportY + row)?.translateToString(true) ?? "").trimEnd(),
    );
  }

  get text(): string {
    return this.lines.join("\n");
  }

  /** Whether the program has the second screen. */
  get isOnSecondScreen(): boolean {
    return this.#screen.buffer.active.type === "alternate";
  }

  /** The first match on the screen, once there is one. */
  async shows(pattern: RegExp): Promise<RegExpExecArray> {
    try {
      return await patiently(() => pattern.exec(this.text) ?? undefined);
    } catch (error) {
      throw new Error(`${pattern} is not on the screen:\n${this.text}`, { cause: error });
    }
  }

  type(keys: string): void {
    this.#script.stdin?.write(keys);
  }

  /** The kernel tells the program by SIGWINCH. */
  resize(columns: number, rows: number): void {
    this.#screen.resize(columns, rows);
    spawnSync("stty", ["-F", readlinkSync(`/proc/${this.pid}/fd/1`), "rows", String(rows), "cols", String(columns)]);
  }

  /** The process that `script` has started on the terminal. */
  get pid(): number {
    const { pid } = this.#script;
    return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ")[0]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#script.exitCode === null && this.#script.signalCode === null) {
      const { pid } = this;
      // The end of the terminal is a hang-up for all that run on it.
      this.#script.kill("SIGKILL");
      await patiently(() => (existsSync(`/proc/${pid}`) ? undefined : true));
    }
    await this.ended;
    this.#screen.dispose();
  }
}
