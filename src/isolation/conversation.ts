import { once } from "node:events";
import { connect, createServer } from "node:net";
import { text } from "node:stream/consumers";
import { type Outcome, PROBE_PORT, type Target } from "./probe-program.ts";

/** Beyond the time its attempts take. */
const ANSWER_MS = 5_000;

/** Gives a probe its orders, over the bridge it is on. Rejects where it does not answer in time, or the signal is aborted. */
export async function ask(
  address: string,
  order: { targets: readonly Target[]; timeoutMs: number },
  signal: AbortSignal,
): Promise<Outcome[]> {
  signal.throwIfAborted();
  const limit = AbortSignal.any([signal, AbortSignal.timeout(order.timeoutMs + ANSWER_MS)]);
  const socket = connect({ host: address, port: PROBE_PORT, signal: limit });
  // Whoever waits is told by what they wait for; without a listener the same error would end the process.
  socket.on("error", () => undefined);
  try {
    await once(socket, "connect", { signal: limit });
    socket.write(`${JSON.stringify(order)}\n`);
    const answer: unknown = JSON.parse(await text(socket));
    if (!Array.isArray(answer) || answer.length !== order.targets.length) throw new Error("a probe's answer is none");
    return answer.map(String);
  } finally {
    socket.destroy();
  }
}

/** Something of this machine's that a container may try to reach: it takes connections and ends them. */
export interface Listener extends AsyncDisposable {
  readonly port: number;
}

/** undefined where the address is not this machine's to listen on (any more). */
export async function listenOn(address: string): Promise<Listener | undefined> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.destroy();
  });
  try {
    server.listen({ host: address, port: 0, exclusive: true });
    await once(server, "listening");
  } catch {
    return undefined;
  }
  const bound = server.address();
  return {
    port: typeof bound === "object" && bound !== null ? bound.port : 0,
    async [Symbol.asyncDispose]() {
      server.close();
      await once(server, "close");
    },
  };
}
