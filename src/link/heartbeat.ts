import type { Socket } from "node:net";
import type { WebSocket } from "ws";

export interface HeartbeatOptions {
  heartbeatSeconds: number;
  /** Something was read, a ping included. */
  onRead: () => void;
  /** Nothing was read for two heartbeats. */
  onSilent: () => void;
}

/**
 * Pings, and watches that something comes back: a peer that has vanished without a word (its machine lost power, a
 * middlebox forgot the connection) is noticed within two heartbeats. Times are monotonic: a step of the clock changes nothing.
 */
export class Heartbeat implements Disposable {
  readonly #transport: Socket;
  readonly #options: HeartbeatOptions;
  readonly #pings: NodeJS.Timeout;
  #deadline: NodeJS.Timeout | undefined;
  #look: NodeJS.Immediate | undefined;
  #lastReadMs = performance.now();

  constructor(socket: WebSocket, transport: Socket, options: HeartbeatOptions) {
    this.#transport = transport;
    this.#options = options;
    this.#pings = setInterval(() => {
      if (socket.readyState === socket.OPEN) socket.ping();
    }, options.heartbeatSeconds * 1000);
    // Bytes, not frames: a large frame that comes slowly is a sign of life as well.
    transport.on("data", this.#onData);
    this.#arm();
  }

  [Symbol.dispose](): void {
    this.#transport.off("data", this.#onData);
    clearInterval(this.#pings);
    clearTimeout(this.#deadline);
    clearImmediate(this.#look);
  }

  readonly #onData = () => {
    this.#lastReadMs = performance.now();
    this.#options.onRead();
  };

  #leftMs(): number {
    return this.#lastReadMs + 2 * this.#options.heartbeatSeconds * 1000 - performance.now();
  }

  #arm(): void {
    this.#deadline = setTimeout(
      () => {
        // Where this process itself was held up, what has come meanwhile is read first, and only then judged.
        this.#look = setImmediate(() => {
          if (this.#leftMs() <= 0) this.#options.onSilent();
          else this.#arm();
        });
      },
      Math.max(0, this.#leftMs()),
    );
  }
}
