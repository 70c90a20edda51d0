import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Answers one request; the key of the table is method and path, with `*` for one part of the path. */
type Answer = (request: IncomingMessage & { body: string }, response: ServerResponse) => void;

export interface FakeEngine extends AsyncDisposable {
  socketPath: string;
  /** `METHOD path` of each request so far, without the query. */
  requests: string[];
}

/** An engine on a unix socket that says what a test tells it to: for what no real dockerd does. */
export async function fakeEngine(answers: Readonly<Record<string, Answer>>): Promise<FakeEngine> {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-fake-"));
  const socketPath = join(dir, "docker.sock");
  const requests: string[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => {
      body += text;
    });
    request.on("end", () => {
      const path = new URL(request.url ?? "/", "http://engine").pathname;
      const line = `${request.method} ${path}`;
      requests.push(line);
      const found = Object.entries(answers).find(([key]) => matches(key, line));
      if (found === undefined) response.writeHead(404).end(JSON.stringify({ message: "no such thing" }));
      else found[1](Object.assign(request, { body }), response);
    });
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  return {
    socketPath,
    requests,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

export function json(value: unknown, status = 200): Answer {
  return (_, response) => {
    response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(value));
  };
}

function matches(key: string, line: string): boolean {
  const [wanted, actual] = [key.split("/"), line.split("/")];
  return wanted.length === actual.length && wanted.every((part, index) => part === "*" || part === actual[index]);
}
