import type { WebSocket } from "ws";
import type { AgentFrame } from "../protocol/agent-frames.ts";
import { BUG } from "../protocol/errors.ts";
import { MAX_FRAME_BYTES } from "../protocol/limits.ts";
import type { LinkLog } from "./needs.ts";

/** With this much unsent, what may be left out is left out (telemetry, progress). */
const DROP_ABOVE_BYTES = 64 * 1024;

/** With this much unsent, what must not be left out waits (events, logs). */
const WAIT_ABOVE_BYTES = 256 * 1024;

/** A coordinator that sends command after command and reads nothing is cut off with this much unsent. */
const CUT_ABOVE_BYTES = 16 * 1024 * 1024;

/**
 * The way out of a session. What has to be said at once (replies, the advertisement) is sent at once; the rest asks
 * first how far the reader is behind, so that no reader, however slow, makes this process grow.
 */
export class Outbox {
  readonly #socket: WebSocket;
  readonly #log: LinkLog;

  constructor(socket: WebSocket, log: LinkLog) {
    this.#socket = socket;
    this.#log = log;
  }

  /** True where telemetry and progress should be left out. */
  get isBehind(): boolean {
    return this.#socket.bufferedAmount > DROP_ABOVE_BYTES;
  }

  /** True where events and logs should wait. */
  get isFull(): boolean {
    return this.#socket.bufferedAmount > WAIT_ABOVE_BYTES;
  }

  /**
   * Sends now. `onSent` is called when the kernel has taken it, or the socket is gone. Returns false where nothing was
   * sent: the session is over, or the frame is larger than the contract allows (a bug, which is logged).
   */
  send(frame: AgentFrame, onSent?: () => void): boolean {
    if (this.#socket.readyState !== this.#socket.OPEN) return false;
    const text = JSON.stringify(frame);
    const bytes = Buffer.byteLength(text);
    if (bytes > MAX_FRAME_BYTES) {
      this.#log.error({ type: frame.type, bytes }, `a frame is over ${MAX_FRAME_BYTES} bytes and is not sent: ${BUG}`);
      return false;
    }
    this.#socket.send(text, () => onSent?.());
    if (this.#socket.bufferedAmount > CUT_ABOVE_BYTES) {
      this.#log.warn(
        { bytes: this.#socket.bufferedAmount },
        "session ends: the coordinator sends but does not read; it is dialled again. Where that goes on, tell its operator",
      );
      this.#socket.terminate();
    }
    return true;
  }

  /** Sends, and resolves when there is room for more; at once where there is. Never rejects. */
  sendWhenRoom(frame: AgentFrame): Promise<void> {
    return new Promise((resolve) => {
      const isSent = this.send(frame, resolve);
      if (!isSent || !this.isFull) resolve();
    });
  }
}
