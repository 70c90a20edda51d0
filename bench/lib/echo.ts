import { spawn } from "node:child_process";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { type WebSocket, WebSocketServer } from "ws";

/** A bare web socket to another process on loopback, which sends back what it gets. */
export interface Echo extends AsyncDisposable {
  /** Round trips of `size` bytes, one after the other with a pause between; milliseconds each. */
  roundTrips(count: number, options: { size: number; pauseMs: number }): Promise<number[]>;
}

export async function startEcho(): Promise<Echo> {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const code = `import { WebSocket } from ${JSON.stringify(import.meta.resolve("ws"))};
const socket = new WebSocket("ws://127.0.0.1:${port}", { perMessageDeflate: false });
socket.on("message", (data) => socket.send(data.toString()));`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: "inherit" });
  const [socket] = (await once(server, "connection")) as [WebSocket];
  return {
    async roundTrips(count, { size, pauseMs }) {
      const text = "x".repeat(size);
      const took: number[] = [];
      for (let round = 0; round < count; round += 1) {
        await sleep(pauseMs);
        const began = performance.now();
        socket.send(text);
        await once(socket, "message");
        took.push(performance.now() - began);
      }
      return took;
    },
    async [Symbol.asyncDispose]() {
      socket.terminate();
      server.close();
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    },
  };
}
