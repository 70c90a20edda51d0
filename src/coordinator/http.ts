import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { whyNotJson } from "../protocol/json-text.ts";
import { ApiError } from "./api-error.ts";

/** Largest request body read. */
export const MAX_BODY_BYTES = 256 * 1024;

/** Who may use the HTTP API. */
export interface Access {
  hosts: { accepts(host: string | undefined): boolean; describe(): string };
  /** Bearer tokens that open it; none = open to all who reach it (loopback only). */
  apiTokens: readonly string[];
}

/** Throws where the request must not be answered: it is meant for another host, comes from another site's page, or has no right. */
export function requireAccess(request: IncomingMessage, { hosts, apiTokens }: Access): void {
  const { host, origin, authorization } = request.headers;
  if (!hosts.accepts(host)) {
    throw new ApiError("wrong_host", `the Host header is "${host ?? ""}", this coordinator is ${hosts.describe()}`);
  }
  // A page of another site can send requests to loopback too; the browser marks them.
  if (origin !== undefined && !isSameOrigin(origin, host)) {
    throw new ApiError("forbidden", `requests from pages of ${origin} are not answered`);
  }
  const site = request.headers["sec-fetch-site"];
  if (site !== undefined && site !== "same-origin" && site !== "none") {
    throw new ApiError("forbidden", "requests from pages of other sites are not answered");
  }
  if (apiTokens.length === 0) return;
  const given = /^Bearer +(\S+)$/i.exec(authorization ?? "")?.[1] ?? "";
  if (!apiTokens.some((token) => isEqual(token, given))) {
    throw new ApiError("unauthorized", 'an API token is needed: send "Authorization: Bearer TOKEN"');
  }
}

function isSameOrigin(origin: string, host: string | undefined): boolean {
  return URL.canParse(origin) && new URL(origin).host === host?.toLowerCase();
}

/** In constant time, whatever the lengths. */
function isEqual(a: string, b: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

/** Reads a JSON body; `{}` where there is none. Throws `too_large` or `bad_message`. */
export async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += (chunk as Buffer).length;
    if (bytes > MAX_BODY_BYTES) throw new ApiError("too_large", `the body is over ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk as Buffer);
  }
  if (bytes === 0) return {};
  // Only this type: a browser never sends it across sites without asking first.
  const type = request.headers["content-type"] ?? "";
  if (!/^application\/json\b/i.test(type)) {
    throw new ApiError("bad_message", `the content type is "${type}", application/json is read`);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch (error) {
    throw new ApiError("bad_message", `the body is not JSON: ${whyNotJson(error)}`);
  }
}

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    "content-type": "application/json; charset=utf-8",
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  });
  response.end(text);
}

/** Starts a streamed answer. */
export function startStream(response: ServerResponse, type: "text/plain" | "application/x-ndjson"): void {
  response.writeHead(200, {
    "content-type": `${type}; charset=utf-8`,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  });
  response.flushHeaders();
}

/** Writes and waits until the reader has room again. Resolves at once when the reader is gone. */
export function write(response: ServerResponse, text: string): Promise<void> {
  if (response.destroyed || response.write(text)) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      response.off("drain", done).off("close", done);
      resolve();
    };
    response.on("drain", done).on("close", done);
  });
}
