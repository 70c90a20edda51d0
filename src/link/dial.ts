import { readFile } from "node:fs/promises";
import { isIP, type Socket } from "node:net";
import type { ConnectionOptions, TLSSocket } from "node:tls";
import { type ClientOptions, WebSocket } from "ws";
import { GpunodeError } from "../protocol/errors.ts";
import { AGENT_PATH, HARD_FRAME_BYTES, PROTOCOL } from "../protocol/limits.ts";
import { DialError, dialError } from "./dial-errors.ts";
import { connectThroughProxy } from "./proxy.ts";

/** Where the coordinator is, checked. */
export interface CoordinatorAddress {
  url: URL;
  /** The Host header as it is sent; the handshake's signature is bound to it. */
  host: string;
}

/** How to get there; files are read at each attempt, so a renewed certificate is used without a restart. */
export interface DialOptions {
  address: CoordinatorAddress;
  /** PEM; takes the place of the system's CAs. */
  caFile?: string;
  certFile?: string;
  keyFile?: string;
  /** `http://` or `https://`, with user and password where the proxy wants them. */
  proxy?: string;
  /** For all of it: name, TCP, TLS, proxy, HTTP upgrade. */
  timeoutMs: number;
}

/** An open socket that has not been read from yet: `socket.resume()` when the listeners are in place. */
export interface DialledSocket {
  socket: WebSocket;
  /** Beneath it: every byte read is a sign of life. */
  transport: Socket;
}

/**
 * Checks the address of a coordinator and adds the agent's path where it has none. Throws `invalid_spec` where it cannot be
 * used, `policy_denied` for unencrypted `ws://` to another machine without `insecure`.
 */
export function coordinatorAddress(
  text: string,
  { insecure = false }: { insecure?: boolean } = {},
): CoordinatorAddress {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !["ws:", "wss:"].includes(url.protocol)) {
    throw new GpunodeError("invalid_spec", `coordinator.url is "${redact(text)}"; it must be wss://HOST[:PORT][/PATH]`);
  }
  if (url.username !== "" || url.password !== "" || url.hash !== "") {
    throw new GpunodeError("invalid_spec", "coordinator.url must have no user, password or #fragment");
  }
  if (url.protocol === "ws:" && !insecure && !isLoopback(url.hostname)) {
    throw new GpunodeError(
      "policy_denied",
      `coordinator.url is ${url.protocol}//${url.host}, which would send everything unencrypted to another machine: use wss://, or set coordinator.insecure = true`,
    );
  }
  if (url.pathname === "/") url.pathname = AGENT_PATH;
  return { url, host: url.host };
}

/** Opens the WebSocket of a session. Throws `DialError` with a sentence for the owner, or the signal's reason. */
export async function dial(options: DialOptions, signal: AbortSignal): Promise<DialledSocket> {
  const limit = new AbortController();
  const timer = setTimeout(
    () =>
      limit.abort(
        new DialError(
          `no answer within ${options.timeoutMs / 1000} s: the host is off or busy, or a firewall drops the connection`,
        ),
      ),
    options.timeoutMs,
  );
  const either = AbortSignal.any([signal, limit.signal]);
  try {
    return await open(options, await socketOptions(options, either), either);
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw limit.signal.aborted ? limit.signal.reason : dialError(error);
  } finally {
    clearTimeout(timer);
  }
}

function open({ address }: DialOptions, client: ClientOptions, signal: AbortSignal): Promise<DialledSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<DialledSocket>();
  signal.throwIfAborted();
  const socket = new WebSocket(address.url, [PROTOCOL], {
    ...client,
    headers: { Host: address.host },
    perMessageDeflate: false,
    maxPayload: HARD_FRAME_BYTES,
    followRedirects: false,
  });
  let transport: Socket | undefined;
  const abort = () => {
    reject(signal.reason);
    socket.terminate();
  };
  signal.addEventListener("abort", abort, { once: true });
  // Stays for the socket's whole life: `terminate` reports an error, too, and nobody else listens yet.
  socket.on("error", (error) => {
    signal.removeEventListener("abort", abort);
    reject(error);
  });
  socket.once("upgrade", (response) => {
    transport = response.socket;
  });
  socket.once("unexpected-response", (request, response) => {
    const retryAfterSeconds = Number(response.headers["retry-after"]);
    const { statusCode: status = 0 } = response;
    const { location } = response.headers;
    request.destroy();
    reject(
      new DialError(`it answered HTTP ${status} instead of a WebSocket: is the path right?`, {
        http: { status, ...(location !== undefined && { location }) },
        ...(retryAfterSeconds > 0 && { retryAfterSeconds }),
      }),
    );
  });
  socket.once("open", () => {
    signal.removeEventListener("abort", abort);
    // The first frame may be here already; it waits until somebody listens.
    socket.pause();
    if (transport === undefined) socket.terminate();
    else resolve({ socket, transport });
  });
  return promise;
}

/** CA, certificate and key; and the way through the proxy. */
async function socketOptions(options: DialOptions, signal: AbortSignal): Promise<ClientOptions> {
  // Said, so that NODE_TLS_REJECT_UNAUTHORIZED in somebody's environment does not say otherwise.
  const tls = { rejectUnauthorized: true, ...(await credentials(options, signal)) };
  if (options.proxy === undefined) return tls;
  const { isSecure, host, target, servername } = whereTo(options.address);
  const way = await connectThroughProxy(proxyUrl(options.proxy), target, signal);
  return { createConnection: () => (isSecure ? overTls({ ...tls, socket: way, servername, host }) : way) };
}

/** What is presented and trusted; absent files are left out. Throws `DialError` where one cannot be read. */
export async function credentials(
  { caFile, certFile, keyFile }: Pick<DialOptions, "caFile" | "certFile" | "keyFile">,
  signal: AbortSignal,
): Promise<{ ca?: string; cert?: string; key?: string }> {
  const [ca, cert, key] = await Promise.all([caFile, certFile, keyFile].map((path) => readPem(path, signal)));
  return {
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
  };
}

/** Host without brackets, port, `host:port` for a proxy, and the name for SNI, which an IP address has none of. */
export function whereTo({ url }: CoordinatorAddress) {
  const isSecure = url.protocol === "wss:";
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const port = Number(url.port || (isSecure ? 443 : 80));
  return { isSecure, host, port, target: `${url.hostname}:${port}`, servername: isIP(host) === 0 ? host : "" };
}

async function readPem(path: string | undefined, signal: AbortSignal): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readFile(path, { encoding: "utf8", signal });
  } catch (error) {
    throw new DialError(`${path} cannot be read: ${error instanceof Error ? error.message : "unknown"}`, {
      cause: error,
    });
  }
}

/** Checks the address of a proxy. Throws `invalid_spec`; the message has no password in it. */
export function proxyUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !["http:", "https:"].includes(url.protocol)) {
    throw new GpunodeError("invalid_spec", `coordinator.proxy is "${redact(text)}"; it must be http://HOST:PORT`);
  }
  return url;
}

/** `hostname` as a URL has it, an IPv6 address in brackets. */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

/** Without what stands before an "@": it may be a password. */
function redact(text: string): string {
  return text.replace(/\/\/[^/]*@/, "//…@").slice(0, 200);
}

/** TLS is loaded with the first coordinator that is spoken to over it. */
function overTls(options: ConnectionOptions): TLSSocket {
  return process.getBuiltinModule("node:tls").connect(options);
}
