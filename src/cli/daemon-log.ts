import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { paint, printable, type Style, type TableOptions } from "./table.ts";

export interface DaemonLogOptions {
  /** Goes on until it is interrupted. */
  follow: boolean;
  /** The last so many lines. */
  tail: number;
}

/** The words of the daemon's log (log-lines.ts) for the priorities of syslog(3). */
const WORDS: readonly { upTo: number; word: string; style: Style }[] = [
  { upTo: 2, word: "fatal", style: ["bold", "red"] },
  { upTo: 3, word: "error", style: "red" },
  { upTo: 4, word: "warn", style: "yellow" },
  { upTo: 6, word: "info", style: "green" },
  { upTo: Number.POSITIVE_INFINITY, word: "debug", style: "dim" },
];

const NO_PRIORITY = { word: "info", style: "green" } as const;

/** What goes on under a line: places in the code, further lines of one sentence. */
const CONTINUED = /^ {4}/;

const NO_JOURNAL =
  'there is no journal on this machine to read: the log is where the daemon was started, as "gpunode run" writes it to its standard output';
const NOT_ALLOWED =
  'you may not read the machine\'s journal: run this with "sudo", or join the group: "sudo usermod -aG systemd-journal $USER", then log in again';
const NOTHING =
  'the journal has nothing of gpunode.service: "gpunode service install" installs it; a daemon that was started by hand writes its log where it was started';

/**
 * Writes what the service has logged to standard output, as the journal has it. Throws with a sentence where there is no journal, it may not
 * be read, or it has nothing of the service.
 */
export async function showDaemonLog({ follow, tail }: DaemonLogOptions, options: TableOptions): Promise<void> {
  const args = ["--unit=gpunode.service", "--output=json", "--all", "--no-pager", `--lines=${tail}`];
  const child = spawn("journalctl", follow ? [...args, "--follow"] : args, {
    env: { ...process.env, LC_ALL: "C.UTF-8" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const started = once(child, "spawn");
  const { promise: closed, resolve: close } = Promise.withResolvers<number | null>();
  child.once("close", close);
  const complaint = text(child.stderr);
  let isOver = false;
  // Nobody else ends one that follows and has nothing to write.
  const end = () => {
    isOver = true;
    child.kill();
  };
  const endings = ["exit", "SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const ending of endings) process.once(ending, end);
  let count = 0;
  try {
    await started;
    for await (const line of createInterface({ input: child.stdout, crlfDelay: Number.POSITIVE_INFINITY })) {
      count += 1;
      if (!process.stdout.write(`${entryInWords(line, options)}\n`)) await once(process.stdout, "drain");
    }
    const code = await closed;
    if (isOver) return;
    const said = await complaint;
    if (/insufficient permissions/i.test(said)) throw new Error(NOT_ALLOWED);
    if (/No journal files were found/i.test(said)) throw new Error(NO_JOURNAL);
    if (code !== 0) throw new Error(`journalctl failed: ${printable(said.trim()) || `exit code ${code}`}`);
    if (count === 0) throw new Error(NOTHING);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw code === "ENOENT" ? new Error(NO_JOURNAL, { cause: error }) : error;
  } finally {
    for (const ending of endings) process.off(ending, end);
  }
}

interface Entry {
  MESSAGE?: unknown;
  PRIORITY?: unknown;
  /** Microseconds since the epoch. */
  __REALTIME_TIMESTAMP?: unknown;
}

/** One line of `journalctl --output=json` as the daemon itself would have written it to this terminal. */
export function entryInWords(line: string, options: TableOptions): string {
  const entry = entryOf(line);
  if (entry === undefined) return printable(line);
  const message = messageOf(entry.MESSAGE);
  if (CONTINUED.test(message)) return `    ${printable(message.trim())}`;
  const priority = Number(entry.PRIORITY ?? 6);
  const { word, style } = WORDS.find(({ upTo }) => priority <= upTo) ?? NO_PRIORITY;
  const time = paint(stamp(Number(entry.__REALTIME_TIMESTAMP) / 1000), "dim", options);
  return `${time} ${paint(word.padEnd(5), style, options)} ${printable(message)}`;
}

function entryOf(line: string): Entry | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The journal gives what is no plain text as a list of bytes, and what is far too long as null. */
function messageOf(message: unknown): string {
  if (typeof message === "string") return message;
  if (Array.isArray(message)) return Buffer.from(message.filter((byte) => typeof byte === "number")).toString("utf8");
  return message === null ? "(too long to be shown)" : "";
}

/** "2026-01-31 14:03:05" by this machine's clock. */
function stamp(ms: number): string {
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return "";
  const two = (value: number) => String(value).padStart(2, "0");
  const day = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
  return `${day} ${[at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":")}`;
}
