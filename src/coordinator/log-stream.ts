import type { Log as LogFrame } from "../protocol/agent-frames.ts";

/** More than this many bytes wait for the reader: the node is asked to wait too. */
export const HIGH_WATER_BYTES = 1024 * 1024;
const LOW_WATER_BYTES = 256 * 1024;

/** The reader is too slow: what was cut can be had again with `since`. */
export const SLOW_READER = "slow_reader";
/** The node's session ended while its output was read. */
export const NODE_DISCONNECTED = "node_disconnected";

/** What a stream may do to the socket its output comes by. */
export interface Tap {
  /** Read nothing more for now. */
  hold(): void;
  release(): void;
  /** The stream was given up: the node need not send the rest. */
  cut(): void;
}

/**
 * A workload's output on its way from the node to one reader, in order and bounded.
 *
 * Output shares the node's one socket with its events, and the contract has no flow control for a single stream. So a
 * reader that falls behind by 1 MiB holds the whole socket (`hold`), which pushes back on the node down to the container's
 * output; a reader that is only a little slower than the node is served without loss that way. It must not cost the node
 * its session, however: after `stallMs` of holding the stream is cut (`slow_reader`) and the socket read again.
 */
export class LogStream implements AsyncIterable<LogFrame> {
  readonly #socket: Tap;
  readonly #stallMs: number;
  readonly #queue: LogFrame[] = [];
  #bytes = 0;
  #stall: NodeJS.Timeout | undefined;
  #endReason: string | undefined;
  #wake: (() => void) | undefined;

  constructor(socket: Tap, options: { stallMs: number }) {
    this.#socket = socket;
    this.#stallMs = options.stallMs;
  }

  /** Why it ended; undefined while it goes on. */
  get endReason(): string | undefined {
    return this.#endReason;
  }

  push(frame: LogFrame): void {
    if (this.#endReason !== undefined) return;
    this.#queue.push(frame);
    this.#bytes += Buffer.byteLength(frame.data);
    this.#wake?.();
    if (this.#bytes < HIGH_WATER_BYTES || this.#stall !== undefined) return;
    this.#socket.hold();
    this.#stall = setTimeout(() => {
      this.end(SLOW_READER);
      this.#socket.cut();
    }, this.#stallMs);
  }

  /** What was pushed before is still read. The first reason stays. */
  end(reason: string): void {
    this.#endReason ??= reason;
    this.#flowAgain();
    this.#wake?.();
  }

  #flowAgain(): void {
    if (this.#stall === undefined) return;
    clearTimeout(this.#stall);
    this.#stall = undefined;
    this.#socket.release();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<LogFrame, void, undefined> {
    while (true) {
      const frame = this.#queue.shift();
      if (frame !== undefined) {
        this.#bytes -= Buffer.byteLength(frame.data);
        if (this.#bytes <= LOW_WATER_BYTES) this.#flowAgain();
        yield frame;
        continue;
      }
      if (this.#endReason !== undefined) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}
