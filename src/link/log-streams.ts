import { StringDecoder } from "node:string_decoder";
import { BUG, GpunodeError } from "../protocol/errors.ts";
import type { LinkDoors, LogPiece, LogsCommand } from "./needs.ts";
import { orAborted } from "./or-aborted.ts";
import type { Outbox } from "./outbox.ts";

/** A `log` frame carries this much at most; were all of it control characters, JSON would make six times as much of it. */
const PIECE_BYTES = 64 * 1024;

const MAX_STREAMS = 100;

/**
 * Output on its way to the coordinator, one stream for each `logs` command of a session. A source is asked for its
 * next piece when there is room for it, so a slow reader slows the container's output down and nothing is dropped.
 */
export class LogStreams implements AsyncDisposable {
  readonly #doors: LinkDoors;
  readonly #outbox: Outbox;
  readonly #streams = new Map<string, { stop: AbortController; done: Promise<void> }>();

  constructor(doors: LinkDoors, outbox: Outbox) {
    this.#doors = doors;
    this.#outbox = outbox;
  }

  /**
   * Opens the stream and calls `accepted` before its first frame. The same command again changes nothing. Throws what
   * the door throws, or `policy_denied` where too many are open.
   */
  open(command: LogsCommand, accepted: () => void): void {
    if (this.#streams.has(command.id)) {
      accepted();
      return;
    }
    if (this.#streams.size >= MAX_STREAMS) {
      const message = `${MAX_STREAMS} log streams are open, which is the limit: end one with logsStop`;
      throw new GpunodeError("policy_denied", message, { details: { limit: MAX_STREAMS } });
    }
    const stop = new AbortController();
    const source = this.#doors.openLogs(command, stop.signal);
    accepted();
    const done = this.#run(command, source, stop.signal).then(() => {
      this.#streams.delete(command.id);
    });
    this.#streams.set(command.id, { stop, done });
  }

  /** Ends a stream; one that has ended already is no error. */
  stop(ref: string): void {
    this.#streams.get(ref)?.stop.abort(new Error("stopped"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const streams = [...this.#streams.values()];
    for (const { stop } of streams) stop.abort(new Error("the session is over"));
    await Promise.all(streams.map(({ done }) => done));
  }

  /** Never rejects. */
  async #run(command: LogsCommand, source: AsyncIterable<LogPiece>, signal: AbortSignal): Promise<void> {
    let reason = "end";
    try {
      await this.#pump(command, source, signal);
      if (signal.aborted) reason = "stopped";
    } catch (error) {
      if (signal.aborted) reason = "stopped";
      else if (error instanceof GpunodeError) reason = error.message;
      else {
        reason = "internal";
        this.#doors.log.error(
          { err: error, workload: command.workload },
          `the output of a workload could not be sent on: ${BUG}`,
        );
      }
    }
    this.#outbox.send({ type: "logEnd", ref: command.id, reason });
  }

  async #pump({ id: ref, workload }: LogsCommand, source: AsyncIterable<LogPiece>, signal: AbortSignal): Promise<void> {
    const decoders = { stdout: new StringDecoder("utf8"), stderr: new StringDecoder("utf8") };
    const send = async (stream: LogPiece["stream"], data: string, at?: string) => {
      if (data === "" || signal.aborted) return;
      const room = this.#outbox.sendWhenRoom({
        type: "log",
        ref,
        workload,
        stream,
        ...(at !== undefined && { at }),
        data,
      });
      await orAborted(room, signal);
    };
    for await (const { stream, data, at } of untilAborted(source, signal)) {
      for (let from = 0; from < data.length; from += PIECE_BYTES) {
        const text = decoders[stream].write(Buffer.from(data.subarray(from, from + PIECE_BYTES)));
        await send(stream, text, at);
      }
    }
    for (const stream of ["stdout", "stderr"] as const) await send(stream, decoders[stream].end());
  }
}

/** Ends when the signal aborts even where the source hangs; the source is then told, but not waited for. */
async function* untilAborted<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]();
  let isOver = false;
  try {
    while (!signal.aborted) {
      const result = await orAborted(iterator.next(), signal);
      if (result === undefined || result.done === true) {
        isOver = result !== undefined;
        return;
      }
      yield result.value;
    }
  } catch (error) {
    isOver = true;
    throw error;
  } finally {
    if (!isOver) void iterator.return?.().catch(() => undefined);
  }
}
