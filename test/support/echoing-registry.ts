import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/**
 * A registry that asks for a login and repeats what it is sent wherever it can: in the message of its error body, in the challenge, as
 * it came and decoded. `heard` is what it was sent.
 */
export async function startEchoingRegistry(): Promise<AsyncDisposable & { address: string; heard: string[] }> {
  const heard: string[] = [];
  const server = createServer((request, response) => answer(request, response, heard));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    address,
    heard,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

function answer(request: IncomingMessage, response: ServerResponse, heard: string[]): void {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const sent = request.headers.authorization?.replace(/^\w+ /, "") ?? "";
    const body = Buffer.concat(chunks).toString();
    const plain = `${Buffer.from(sent, "base64").toString("utf8")} ${new URLSearchParams(body)} ${decodeURIComponent(body.replaceAll("+", " "))}`;
    heard.push(plain);
    const echo = `you sent ${sent} which is ${plain} ${encodeURIComponent(plain)} ${Buffer.from(`<${plain}`).toString("base64url")}`;
    const { host } = request.headers;
    const isBearer = !request.url?.startsWith("/token") && (request.url ?? "").includes("/v2/");
    const challenge = isBearer
      ? `Bearer realm="http://${host}/token",service="${sent === "" ? "registry" : encodeURIComponent(echo).slice(0, 300)}"`
      : `Basic realm="${sent}"`;
    response.setHeader("Docker-Distribution-Api-Version", "registry/2.0");
    if (request.url?.includes("/status/")) {
      response.writeHead(500, { "Content-Type": "text/plain" }).end(echo);
      return;
    }
    response
      .writeHead(401, { "Content-Type": "application/json", "WWW-Authenticate": challenge })
      .end(JSON.stringify({ errors: [{ code: "DENIED", message: echo, detail: echo }], details: echo }));
  });
}
