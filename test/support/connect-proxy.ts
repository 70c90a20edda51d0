import { createServer, type IncomingMessage, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { onTestFinished } from "vitest";

/** An HTTP proxy that only knows CONNECT, and leads to a port of this machine where one is given; gone after the test. */
export async function connectProxy({ refuse = false, leadTo }: { refuse?: boolean; leadTo?: number } = {}) {
  const requests: IncomingMessage[] = [];
  const server: Server = createServer();
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.on("connect", (request, client) => {
    requests.push(request);
    client.on("error", () => undefined);
    if (refuse) {
      client.end("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
      return;
    }
    const [host, port] = leadTo === undefined ? String(request.url).split(":") : ["127.0.0.1", leadTo];
    const far = connect(Number(port), host, () => {
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      far.pipe(client).pipe(far);
    });
    far.on("error", () => undefined);
    // A pipe whose other end is gone no longer reads; the close that follows would be missed.
    far.on("close", () => client.resume());
    client.on("close", () => far.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return {
    port: (server.address() as AddressInfo).port,
    requests,
    get asked() {
      return requests.map(({ url }) => url);
    },
    get open() {
      return sockets.size;
    },
  };
}
