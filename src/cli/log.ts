import { fstatSync } from "node:fs";
import { type Logger, pino } from "pino";
import type { Config } from "../config/config.ts";
import { type Look, linesFor } from "./log-lines.ts";

type LogStream = NodeJS.WriteStream & { fd: number };

/**
 * The daemon's log, written synchronously: the last line before an end is the one that matters. Lines for a person (`text`), or one JSON
 * object a line; `auto` is text where a person reads, at a terminal and in the journal.
 */
export function createLog({ level, format }: Config["log"], stream: LogStream, env = process.env): Logger {
  // Standard output is closed when its reader is gone; the daemon goes on.
  stream.on("error", () => undefined);
  const to = pino.destination({ dest: stream.fd, sync: true });
  const look = lookOf(stream, env);
  if (format === "json" || (format === "auto" && look === "file")) {
    const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
    return pino({ ...options, formatters: { level: (label) => ({ level: label }) } }, to);
  }
  const color = look === "terminal" && stream.hasColors?.() === true && !env.NO_COLOR;
  const write = linesFor({ look, color });
  // In place of pino's own way, which would make JSON that had to be read again.
  const logMethod = (args: unknown[], _method: unknown, number: number) => {
    to.write(write(number, args));
  };
  return pino({ level, base: null, hooks: { logMethod } }, to);
}

function lookOf(stream: LogStream, env: NodeJS.ProcessEnv): Look {
  if (stream.isTTY) return "terminal";
  return isJournal(stream.fd, env.JOURNAL_STREAM) ? "journal" : "file";
}

/** systemd says which file its journal is, by device and inode (systemd.exec(5)): what the service starts may well write elsewhere. */
function isJournal(fd: number, journalStream: string | undefined): boolean {
  if (!journalStream) return false;
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return journalStream === `${dev}:${ino}`;
  } catch {
    return false;
  }
}
