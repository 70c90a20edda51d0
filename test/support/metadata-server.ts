import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished, vi } from "vitest";
import type { Claim } from "../../src/preemption/claim.ts";
import { type CloudOptions, type CloudTimes, watchCloud } from "../../src/preemption/cloud.ts";

export type Reply = (request: IncomingMessage, response: ServerResponse) => void;

/** For services that are no use: not long to wait for, and more than a busy machine takes for an answer. */
export const IMPATIENT: CloudTimes = {
  intervalMs: 10,
  timeoutMs: 500,
  firstTimeoutMs: 500,
  longestPauseMs: 40,
};

/** The steady clock of these tests is elsewhere than the wall clock. */
export const AHEAD_MS = 5_000_000;

export const text =
  (body: string, status = 200, headers: Record<string, string> = {}): Reply =>
  (_request, response) =>
    void response.writeHead(status, headers).end(body);

export const json = (value: unknown): Reply => text(JSON.stringify(value));

export const missing: Reply = text("", 404);

/** Services that are no use, each in its own way. */
export const USELESS: Record<string, Reply> = {
  "that hangs": () => undefined,
  "that drips": (_request, response) => {
    response.writeHead(200);
    const drip = setInterval(() => response.write(" "), 20);
    response.on("close", () => clearInterval(drip));
  },
  "that never stops": (_request, response) => {
    response.writeHead(200);
    const chunk = "x".repeat(64 * 1024);
    const pour = () => {
      while (!response.destroyed && response.write(chunk));
    };
    response.on("drain", pour);
    pour();
  },
  "that hangs up in the middle": (request, response) => {
    response.writeHead(200, { "content-length": "1000" });
    response.write("{");
    setTimeout(() => request.socket.destroy(), 5);
  },
  "that says nothing": text(""),
  "that says garbage": text('{"action": "termi\u0000'),
  "that answers with a page": text("<html><body>Log in to the WiFi</body></html>"),
  "that answers with another shape": text("[[]]"),
  "that fails": text("Internal Server Error", 500),
  "that forbids": text("", 403),
  "that sends elsewhere": text("", 302, { location: "http://127.0.0.1:9/" }),
};

/** A metadata service on loopback: answers by path, what is not set is 404. Gone when the test is over. */
export async function metadataServer(first: readonly (readonly [string, Reply])[] = []): Promise<{
  url: string;
  /** By `METHOD /path?query`. */
  replies: Map<string, Reply>;
  requests: { line: string; headers: IncomingMessage["headers"] }[];
}> {
  const replies = new Map<string, Reply>(first);
  const requests: { line: string; headers: IncomingMessage["headers"] }[] = [];
  const server = createServer((request, response) => {
    const line = `${request.method} ${request.url}`;
    requests.push({ line, headers: request.headers });
    response.on("error", () => undefined);
    (replies.get(line) ?? missing)(request, response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, replies, requests };
}

/** A watch on that service, quick, with all it tells. Gone when the test is over. */
export function watched(options: Partial<CloudOptions> & Pick<CloudOptions, "provider">) {
  const raised: (readonly Claim[])[] = [];
  const lines: string[] = [];
  const watch = watchCloud({
    now: Date.now,
    steady: () => Date.now() + AHEAD_MS,
    hasGpus: () => true,
    raise: (claims) => raised.push(claims),
    log: {
      info: (_fields, message) => lines.push(`info ${message}`),
      warn: (_fields, message) => lines.push(`warn ${message}`),
    },
    times: { intervalMs: 10, longestPauseMs: 40 },
    ...options,
  });
  onTestFinished(async () => watch?.[Symbol.asyncDispose]());
  return { watch, raised, lines, warnings: () => lines.filter((line) => line.startsWith("warn")) };
}

/** Waits until something holds; fails as it fails after ten seconds. */
export function until(holds: () => void): Promise<void> {
  return vi.waitFor(holds, { timeout: 10_000, interval: 5 });
}
