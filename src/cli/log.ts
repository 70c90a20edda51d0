import { type Logger, pino } from "pino";

/**
 * The daemon's log: JSON lines, or lines for a person where the stream is a terminal. Written synchronously: the last
 * line before an end is the one that matters.
 */
export async function createLog(level: string, stream: NodeJS.WriteStream & { fd: number }): Promise<Logger> {
  // Standard output is closed when its reader is gone; the daemon goes on.
  stream.on("error", () => undefined);
  if (!stream.isTTY) {
    const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
    return pino(
      { ...options, formatters: { level: (label) => ({ level: label }) } },
      pino.destination({ dest: stream.fd, sync: true }),
    );
  }
  const { default: prettyStream } = await import("pino-pretty");
  const pretty = prettyStream({
    translateTime: "HH:MM:ss",
    ignore: "pid,hostname",
    destination: stream.fd,
    singleLine: true,
    sync: true,
  });
  return pino({ level, base: null }, pretty);
}
