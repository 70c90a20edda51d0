import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** How the stretch of network between agent and coordinator behaves. */
export interface Weather {
  /** `open` passes; `lost` swallows without closing, as a dead router does; `closed` refuses and resets, as a dead host does. */
  up: "open" | "lost";
  down: "open" | "lost";
  closed: boolean;
  /** Each piece of data waits so long, in order; milliseconds. */
  delayMs: number;
  /** Share of the pieces that are lost once and come with a retransmission, 0–1. */
  loss: number;
  /** Bytes a second, each way; absent is unlimited. */
  bytesPerSecond?: number;
}

export const FAIR: Weather = { up: "open", down: "open", closed: false, delayMs: 0, loss: 0 };

/** What TCP waits before it sends again what was lost (RFC 6298: at least 200 ms in practice, doubling). */
const RETRANSMIT_MS = 250;

/** A TCP proxy whose weather a test makes: half-open sockets, one-way cuts, delay, loss, slow links. */
export class Network implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #end = new AbortController();
  readonly #random: () => number;
  #weather: Weather = FAIR;
  /** Port of the coordinator; may be set after the start. */
  target = 0;

  private constructor(random: () => number) {
    this.#random = random;
    this.#server = createServer((near) => this.#join(near));
  }

  static async start(random: () => number = Math.random): Promise<Network> {
    const network = new Network(random);
    await new Promise<void>((resolve) => network.#server.listen(0, "127.0.0.1", resolve));
    return network;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get weather(): Weather {
    return this.#weather;
  }

  /** From now on; what swallowed data belongs to connections that must break, so `FAIR` breaks those. */
  set weather(weather: Weather) {
    const wasLosing = this.#weather.up === "lost" || this.#weather.down === "lost";
    const isLosing = weather.up === "lost" || weather.down === "lost";
    this.#weather = weather;
    // A stream with a hole in it would be no TCP: the connection is reset when the line is back.
    if (weather.closed || (wasLosing && !isLosing)) this.#reset();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#reset();
    this.#end.abort();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #reset(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
    this.#sockets.clear();
  }

  #join(near: Socket): void {
    if (this.#weather.closed) {
      near.resetAndDestroy();
      return;
    }
    const far = connect(this.target, "127.0.0.1");
    for (const [from, to, way] of [
      [near, far, "up"],
      [far, near, "down"],
    ] as const) {
      this.#sockets.add(from);
      // One after the other: timers of their own could overtake each other, and a stream must stay in order.
      let last: Promise<void> = Promise.resolve();
      let queued = 0;
      from.on("data", (data: Buffer) => {
        const arrived = performance.now();
        queued += 1;
        // A slow line must slow its sender down, not fill this process.
        if (queued > 16) from.pause();
        last = last.then(async () => {
          if (this.#weather[way] === "open") {
            const { delayMs, loss, bytesPerSecond } = this.#weather;
            const again = this.#random() < loss ? RETRANSMIT_MS * (1 + Math.floor(this.#random() * 3)) : 0;
            const sendMs = bytesPerSecond === undefined ? 0 : (data.length / bytesPerSecond) * 1000;
            await this.#until(arrived + delayMs + again, sendMs);
            if (this.#weather[way] === "open" && !to.destroyed) to.write(data);
          }
          queued -= 1;
          from.resume();
        });
      });
      from.on("error", () => undefined);
      from.on("close", () => {
        this.#sockets.delete(from);
        if (this.#weather.up === "open" && this.#weather.down === "open") to.destroy();
      });
    }
  }

  /** Waits until `dueMs` has come and for at least `leastMs`; at once where neither lies ahead. */
  async #until(dueMs: number, leastMs: number): Promise<void> {
    const waitMs = Math.max(dueMs - performance.now(), leastMs);
    if (waitMs > 0) await sleep(waitMs, undefined, { signal: this.#end.signal }).catch(() => undefined);
  }
}
