import { request as httpRequest } from "node:http";
import type { Socket } from "node:net";
import { DialError, dialError } from "./dial-errors.ts";

/**
 * Opens a way to `target` (`host:port`) through an HTTP proxy, by CONNECT. User and password of the proxy's URL are sent
 * as basic authentication and appear in no message.
 */
export function connectThroughProxy(proxy: URL, target: string, signal: AbortSignal): Promise<Socket> {
  const isSecure = proxy.protocol === "https:";
  const credentials = [proxy.username, proxy.password].map(decodeURIComponent).join(":");
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const request = (isSecure ? process.getBuiltinModule("node:https").request : httpRequest)({
    method: "CONNECT",
    host: proxy.hostname.replace(/^\[|\]$/g, ""),
    port: proxy.port || (isSecure ? 443 : 80),
    path: target,
    headers: {
      Host: target,
      ...(credentials !== ":" && { "Proxy-Authorization": `Basic ${Buffer.from(credentials).toString("base64")}` }),
    },
    agent: false,
    // See dial.ts: no environment variable makes the proxy's certificate good.
    rejectUnauthorized: true,
    signal,
  });
  request.once("connect", (response, socket, head) => {
    if (response.statusCode === 200) {
      if (head.length > 0) socket.unshift(head);
      // `request` and its signal let go of the socket here; whoever takes it closes it.
      resolve(socket as Socket);
      return;
    }
    socket.destroy();
    reject(new DialError(`the proxy ${proxy.host} answered ${response.statusCode} to CONNECT ${target}`));
  });
  request.once("response", (response) => {
    response.destroy();
    reject(new DialError(`the proxy ${proxy.host} answered ${response.statusCode} to CONNECT ${target}`));
  });
  request.once("error", (error) => {
    reject(new DialError(`the proxy ${proxy.host} cannot be used: ${dialError(error).message}`, { cause: error }));
  });
  request.end();
  return promise;
}
