import { closeSync, constants, fstatSync, openSync, readSync, statSync } from "node:fs";
import { StringDecoder } from "node:string_decoder";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";

/** A message of the kernel. */
export interface KernelMessage {
  /** When it was written, milliseconds since the epoch; 0 for a line that a file held before, which tells no time. */
  atMs: number;
  text: string;
}

export interface KernelLogOptions {
  /** `/dev/kmsg`, or a file that grows by lines of `dmesg` or syslog. */
  path?: string;
  signal: AbortSignal;
  /** Only messages in which one of these stands; all where absent. A log holds a thousand others. */
  mentioning?: readonly string[];
  pollMs?: number;
  /** Told once, with what to do, where the log cannot be read; undefined again when it can. */
  onProblem?: (problem: { code: "kernel_log_unreadable"; message: string } | undefined) => void;
  /** Called once: what the log held at the start has been told. Also where it cannot be read. */
  onCaughtUp?: () => void;
  now?: () => number;
  /** Milliseconds since boot, as `/dev/kmsg` counts them (CLOCK_MONOTONIC). */
  monotonic?: () => number;
}

const POLL_MS = 1_000;
/** What cannot be read now is tried again so often: a file may come, a permission be given. */
const REOPEN_MS = 60_000;
const BLOCK_BYTES = 64 * 1024;
/** A line longer than this is cut: nothing the driver says is. */
const LINE_MAX = 8 * 1024;
/** A record of the device is no longer than 8 KiB (CONSOLE_EXT_LOG_MAX), and not given to who has no room for it. */
const RECORD_MAX = 16 * 1024;

/**
 * The kernel's messages, those of this boot that it still holds first. Never throws; ends with the signal, and no timer or descriptor
 * is left then. The device is read without blocking: a read that waits would hold one of the few threads that all files share.
 */
export async function* kernelMessages(options: KernelLogOptions): AsyncGenerator<KernelMessage> {
  const { path = "/dev/kmsg", signal, pollMs = POLL_MS, onProblem } = options;
  let hasProblem = false;
  let isCaughtUp = false;
  const caughtUp = () => {
    if (!isCaughtUp) options.onCaughtUp?.();
    isCaughtUp = true;
  };
  const how = { ...options, pollMs, caughtUp, isCaughtUp: () => isCaughtUp };
  while (!signal.aborted) {
    try {
      using file = open(path);
      if (hasProblem) onProblem?.(undefined);
      hasProblem = false;
      yield* file.isDevice ? deviceRecords(file.fd, how) : fileLines(file.fd, { ...how, path });
    } catch (error) {
      if (!hasProblem) onProblem?.({ code: "kernel_log_unreadable", message: inWords(path, error) });
      hasProblem = true;
      caughtUp();
    }
    if (!signal.aborted) await pause(hasProblem ? REOPEN_MS : pollMs, signal);
  }
}

function open(path: string): Disposable & { fd: number; isDevice: boolean } {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return { fd, isDevice: fstatSync(fd).isCharacterDevice(), [Symbol.dispose]: () => closeSync(fd) };
}

type Reading = KernelLogOptions & { pollMs: number; caughtUp(): void; isCaughtUp(): boolean };

/**
 * `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg): one record a read, `priority,sequence,microseconds,flags;text`, further lines of it
 * begin with a space.
 */
async function* deviceRecords(fd: number, options: Reading): AsyncGenerator<KernelMessage> {
  const {
    signal,
    mentioning,
    pollMs,
    now = Date.now,
    monotonic = () => Number(process.hrtime.bigint() / 1000n) / 1000,
  } = options;
  const block = Buffer.alloc(BLOCK_BYTES);
  const isWanted = (bytes: Buffer) => mentioning === undefined || mentioning.some((word) => bytes.includes(word));
  while (!signal.aborted) {
    const { ends, isAll } = readRecords(fd, block);
    let start = 0;
    // All at once first: most of them hold nothing for us, and there may be thousands.
    for (const end of isWanted(block.subarray(0, ends.at(-1) ?? 0)) ? ends : []) {
      const record = block.subarray(start, end);
      start = end;
      if (!isWanted(record)) continue;
      const [, microseconds, text] = /^\d+,\d+,(\d+)[^;]*;([^\n]*)/.exec(record.toString("utf8")) ?? [];
      if (microseconds !== undefined && text !== undefined) {
        yield { atMs: Math.round(now() - (monotonic() - Number(microseconds) / 1000)), text };
      }
    }
    if (isAll) {
      options.caughtUp();
      await pause(pollMs, signal);
    } else await nextTurn();
  }
}

/** Reads records into `block`, one behind the other, as many as fit. Returns where each ends, and whether these are all for now. */
function readRecords(fd: number, block: Buffer): { ends: number[]; isAll: boolean } {
  const ends: number[] = [];
  let at = 0;
  while (at + RECORD_MAX <= block.length) {
    try {
      const bytes = readSync(fd, block, at, block.length - at, null);
      if (bytes === 0) return { ends, isAll: true };
      at += bytes;
      ends.push(at);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EAGAIN") return { ends, isAll: true };
      // Records were overwritten before they were read; the next read goes on behind them.
      if (code !== "EPIPE") throw error;
    }
  }
  return { ends, isAll: false };
}

/** Whole lines of a file that grows; one that was cut short is read from its beginning again. */
async function* fileLines(fd: number, options: Reading): AsyncGenerator<KernelMessage> {
  const { path = "", signal, mentioning, pollMs, now = Date.now } = options;
  const isWanted = (line: string) =>
    line !== "" && (mentioning === undefined || mentioning.some((word) => line.includes(word)));
  const block = Buffer.alloc(BLOCK_BYTES);
  let position = 0;
  // A block may end within a character.
  let decoder = new StringDecoder("utf8");
  let rest = "";
  while (!signal.aborted) {
    if (fstatSync(fd).size < position) {
      position = 0;
      decoder = new StringDecoder("utf8");
      rest = "";
    }
    const bytes = readSync(fd, block, 0, block.length, position);
    if (bytes === 0) {
      options.caughtUp();
      // Rotated away: what is written now is in another file of that name.
      if (statSync(path).ino !== fstatSync(fd).ino) return;
      await pause(pollMs, signal);
      continue;
    }
    position += bytes;
    const lines = (rest + decoder.write(block.subarray(0, bytes))).split("\n");
    rest = (lines.pop() ?? "").slice(0, LINE_MAX);
    for (const line of lines) if (isWanted(line)) yield { atMs: options.isCaughtUp() ? now() : 0, text: line };
    await nextTurn();
  }
}

function inWords(path: string, error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  const remedy =
    code === "EPERM" || code === "EACCES"
      ? "run gpunode as root or with CAP_SYSLOG"
      : "set nvidia.kernel_log to where the kernel's messages are";
  return `the kernel log ${path} cannot be read (${code ?? String(error)}), so faults the driver reports there (Xid) are not seen: ${remedy}`;
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal, ref: false }).catch(() => undefined);
}
