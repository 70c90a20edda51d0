import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Problem } from "../protocol/agent-frames.ts";
import { GpunodeError } from "../protocol/errors.ts";
import { isLoopback, refutePageRequest } from "./guard.ts";

/** What a route answers: a body with its media type. */
export interface Answer {
  type: string;
  body: string | Buffer;
}

/** One path of the listener, for `GET` and `HEAD`. */
export interface Route {
  /** Throws `GpunodeError` where the query is wrong; of anything else the asker is told no more than that it failed. */
  answer(query: URLSearchParams): Answer | Promise<Answer>;
  /** Also for other machines, where `metrics.listen` lets them in. */
  forOthers?: true;
}

/** The part of a logger used here. */
export interface ListenerLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface ListenerOptions {
  /** Port 0: any free one. */
  listen: { host: string; port: number };
  /** By path. */
  routes: Readonly<Record<string, Route>>;
  log: ListenerLog;
  /** An address that is taken is tried again after this; 30 s where absent. */
  retryMs?: number;
}

/** The TCP side of what the owner sees: it shows, and takes no orders. */
export interface Listener extends AsyncDisposable {
  /** Where a browser finds the page, `http://127.0.0.1:9835/`; undefined while nothing listens. */
  readonly url: string | undefined;
  problems(): Problem[];
}

/** Enough for a page and a few scrapers; the rest is turned away. */
const MOST_CONNECTIONS = 64;
const PATIENCE = { headersTimeout: 5000, requestTimeout: 10_000, connectionsCheckingInterval: 1000 };
const RETRY_MS = 30_000;

/** Nothing from elsewhere, nothing inline, in nobody's frame. */
const GUARDING_HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "cache-control": "no-store",
};

/**
 * Answers `GET` on a TCP address. Never rejects: a daemon whose page cannot be shown still does its work, so an address that is
 * taken is a problem told by `problems`, and is tried again.
 */
export async function startListener(options: ListenerOptions): Promise<Listener> {
  const { listen, log, retryMs = RETRY_MS } = options;
  const address = `${listen.host.includes(":") ? `[${listen.host}]` : listen.host}:${listen.port}`;
  const server = createServer(PATIENCE, (request, response) => {
    respond(request, response, options).catch((error: unknown) => {
      if (error instanceof GpunodeError) return refuse(response, 400, error.message);
      log.error({ err: error }, "a request to the local page failed: this is a bug");
      if (response.headersSent) response.destroy();
      else refuse(response, 500, "this could not be answered; the daemon's log says why");
    });
  });
  server.maxConnections = MOST_CONNECTIONS;
  let failure: string | undefined;
  let retry: NodeJS.Timeout | undefined;
  const problem = (why: string): Problem => ({
    code: "page_unavailable",
    message: `the local page and /metrics cannot be served on ${address}: ${why}. Set metrics.listen to a free address, or to "off"`,
  });
  const bind = async () => {
    const before = failure;
    failure = await failureOf(server, listen);
    if (failure === undefined) log.info({ url: urlOf(server, listen.host) }, "the local page and /metrics are served");
    else {
      const { code, message } = problem(failure);
      if (failure !== before) log.warn({ code }, message);
      retry = setTimeout(() => void bind(), retryMs);
      retry.unref();
    }
  };
  await bind();
  return {
    get url() {
      return urlOf(server, listen.host);
    },
    problems: () => (failure === undefined ? [] : [problem(failure)]),
    async [Symbol.asyncDispose]() {
      clearTimeout(retry);
      if (!server.listening) return;
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Why it does not listen; undefined where it does. */
async function failureOf(server: Server, { host, port }: ListenerOptions["listen"]): Promise<string | undefined> {
  try {
    const listening = once(server, "listening");
    server.listen({ host, port, exclusive: true });
    await listening;
    return undefined;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "EADDRINUSE") return "another program listens there";
    if (code === "EADDRNOTAVAIL") return "this machine has no such address";
    if (code === "EACCES") return "it needs a right this user does not have (ports below 1024)";
    return message;
  }
}

function urlOf(server: Server, host: string): string | undefined {
  const address = server.address() as AddressInfo | null;
  if (address === null) return undefined;
  // "All addresses" is no place a browser can go to.
  const shown = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
  return `http://${shown.includes(":") ? `[${shown}]` : shown}:${address.port}/`;
}

async function respond(request: IncomingMessage, response: ServerResponse, { routes }: ListenerOptions): Promise<void> {
  for (const [name, value] of Object.entries(GUARDING_HEADERS)) response.setHeader(name, value);
  const { method = "", headers, socket, url = "" } = request;
  const [path = "", ...rest] = url.split("?");
  if (method !== "GET" && method !== "HEAD") {
    response.setHeader("allow", "GET, HEAD").setHeader("connection", "close");
    return refuse(response, 405, 'this page only shows; "gpunode reclaim" and the other commands act');
  }
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  const { remoteAddress = "", localAddress = "" } = socket;
  const isFromHere = isLoopback(remoteAddress) && isLoopback(localAddress);
  if (!isFromHere && route?.forOthers !== true)
    return refuse(response, 403, "only /metrics is shown to other machines; come through ssh -L");
  const refuted = refutePageRequest(headers, { anyHost: !isFromHere });
  if (refuted !== undefined) return refuse(response, 403, refuted);
  if (route === undefined) return refuse(response, 404, `there is nothing at ${path.slice(0, 100)}`);
  const { type, body } = await route.answer(new URLSearchParams(rest.join("?")));
  response.writeHead(200, { "content-type": type, "content-length": Buffer.byteLength(body) });
  response.end(method === "HEAD" ? undefined : body);
}

function refuse(response: ServerResponse, status: number, sentence: string): void {
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8" });
  response.end(`${sentence}\n`);
}
