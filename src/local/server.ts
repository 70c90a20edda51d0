import { isUtf8 } from "node:buffer";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Hold } from "../protocol/agent-frames.ts";
import { BUG, GpunodeError } from "../protocol/errors.ts";
import { refuteRequest } from "./guard.ts";
import { type History, hoursOf } from "./history.ts";
import { tryLock } from "./lock.ts";
import type { Snapshot } from "./snapshot.ts";

/** Another daemon lives in this `run_dir`. */
export class AlreadyRunning extends Error {
  override readonly name = "AlreadyRunning";
}

/** A piece of a workload's output, bytes as the container wrote them. */
export interface OutputChunk {
  stream: "stdout" | "stderr";
  data: Buffer;
}

/** Who keeps what from being lent, afterwards. */
interface Kept {
  holds: Hold[];
}

/** What the owner may ask the daemon to do. Each may throw `GpunodeError`, which is told to the owner. */
export interface LocalActions {
  /** Accept nothing new and give back what runs. Repeating it is harmless. */
  drain(options: { graceSeconds?: number; maintenance?: boolean }): Kept | Promise<Kept>;
  /** Take GPUs back, by index or UUID, or all of the machine; for a while, or until `resume`. Throws `no_matching_gpu`. */
  reclaim(options: { gpus?: string[]; forMs?: number; graceSeconds?: number }): Kept | Promise<Kept>;
  /** Lend again: all, or these GPUs. */
  resume(options: { gpus?: string[] }): Kept | Promise<Kept>;
  /** Lets go of the GPUs; resolves when no process of ours has them open. */
  pauseSampling(): Promise<void>;
  resumeSampling(): Promise<void>;
  /** Signed usage records that end after `sinceMs` (milliseconds since the epoch), with whose keys they verify. */
  usage(sinceMs: number): { node: SigningNode; records: Iterable<unknown> };
  /** What the node did in the last `hours`, 1 to 24. */
  history(hours: number): History;
  /** A workload's output, in order; with `follow` until it ends. Throws `unknown_workload`. */
  logs(id: string, options: { follow: boolean; tail?: number; signal: AbortSignal }): AsyncIterable<OutputChunk>;
  /** Gives the node a new key. Throws `unsupported` where the coordinator does not take it. */
  rotateKey(): Promise<RotatedKey>;
}

/** A node and all the keys it ever signed with. */
export interface SigningNode {
  id: string;
  /** Raw 32-byte Ed25519 key, base64url. */
  publicKey: string;
  /** Those it had before, oldest first. */
  replaces: readonly { nodeId: string; publicKey: string; retiredAt: string }[];
}

/** `pending`: the key is changed when the coordinator has been reached. */
export type RotatedKey = { state: "done"; nodeId: string; replaces: string } | { state: "pending"; nodeId: string };

/** The part of a logger used here. */
export interface LocalLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface LocalApiOptions {
  socketPath: string;
  snapshot: () => Snapshot | Promise<Snapshot>;
  actions: LocalActions;
  log: LocalLog;
}

/**
 * The owner's door: HTTP on a unix socket of mode 0660, so that the daemon's user and group may use it. The socket of a dead
 * daemon is replaced; while a daemon lives, this throws an error that names its process.
 *
 * `GET /v1/status` · `GET /v1/workloads` · `GET /v1/history?hours=N` · `GET /v1/workloads/ID/logs?follow&tail=N` and `GET /v1/usage?sinceMs=N` (one JSON object a
 * line) · `POST /v1/drain?graceSeconds=N&maintenance` · `POST /v1/reclaim?gpu=N&forMs=N&graceSeconds=N` ·
 * `POST /v1/resume?gpu=N` · `POST /v1/sampling/pause` · `POST /v1/sampling/resume` · `POST /v1/rotate-key`. Errors are `{"error": {"code", "message"}}`.
 */
export async function startLocalApi(options: LocalApiOptions): Promise<AsyncDisposable> {
  const { socketPath, log } = options;
  requireShortPath(socketPath);
  const runDir = dirname(socketPath);
  mkdirSync(runDir, { recursive: true, mode: 0o755 });
  const pidFile = join(runDir, "gpunode.pid");
  const lock = tryLock(join(runDir, "gpunode.lock"));
  if (lock === undefined) {
    const pid = existsSync(pidFile) ? ` (pid ${readFileSync(pidFile, "utf8").trim()})` : "";
    throw new AlreadyRunning(
      `another gpunode is already running${pid} with ${runDir}; stop it, or give this one its own run_dir`,
    );
  }
  try {
    // We hold the lock, so nobody answers on a socket that lies here.
    rmSync(socketPath, { force: true });
    writeFileSync(pidFile, `${process.pid}\n`, { mode: 0o644 });
    const closing = new AbortController();
    const server = createServer(PATIENCE, (request, response) => {
      respond(request, response, options, closing.signal).catch((error: unknown) => {
        log.error({ err: error }, `a request on the local socket failed: ${BUG}`);
        response.destroy();
      });
    });
    server.maxConnections = MOST_CONNECTIONS;
    server.on("drop", () =>
      log.debug({}, `more than ${MOST_CONNECTIONS} connections to the local socket: one was turned away`),
    );
    await listen(server, socketPath);
    log.debug({ socket: socketPath }, "listening on the local socket");
    return {
      async [Symbol.asyncDispose]() {
        closing.abort();
        const closed = once(server, "close");
        server.close();
        server.closeAllConnections();
        await closed;
        rmSync(pidFile, { force: true });
        lock[Symbol.dispose]();
      },
    };
  } catch (error) {
    lock[Symbol.dispose]();
    throw error;
  }
}

/** Whoever may use the socket is trusted, but a client gone wrong shall not take the daemon's files and memory. */
const MOST_CONNECTIONS = 256;
const PATIENCE = { headersTimeout: 5000, requestTimeout: 10_000, connectionsCheckingInterval: 1000 };

/** The kernel cuts longer paths (sockaddr_un has 108 bytes), and the socket would lie somewhere else. */
function requireShortPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes > 107)
    throw new Error(`the socket path ${path} has ${bytes} bytes, at most 107 work; set a shorter run_dir`);
}

async function listen(server: Server, path: string): Promise<void> {
  // The socket gets its mode when it is bound, which happens within this call: nobody can come in between.
  const before = process.umask(0o117);
  const listening = once(server, "listening");
  try {
    server.listen(path);
  } finally {
    process.umask(before);
  }
  await listening;
  chmodSync(path, 0o660);
}

async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  { snapshot, actions }: LocalApiOptions,
  closing: AbortSignal,
): Promise<void> {
  // As it was sent: what names another host, or a way up, is no path of ours.
  const [path = "", ...rest] = (request.url ?? "").split("?");
  const query = new URLSearchParams(rest.join("?"));
  const endpoint = `${request.method} ${path}`;
  try {
    const foreign = refuteRequest(request.headers);
    if (foreign !== undefined) return sendJson(response, 403, { error: { code: "policy_denied", message: foreign } });
    if (hasBody(request)) {
      response.setHeader("connection", "close");
      return sendJson(response, 413, { error: { code: "bad_message", message: "requests have no body here" } });
    }
    const logs = /^GET \/v1\/workloads\/([^/]+)\/logs$/.exec(endpoint);
    if (endpoint === "GET /v1/status") sendJson(response, 200, await snapshot());
    else if (endpoint === "GET /v1/workloads") sendJson(response, 200, (await snapshot()).workloads);
    else if (logs !== null) {
      const gone = new AbortController();
      response.once("close", () => gone.abort());
      const signal = AbortSignal.any([gone.signal, closing]);
      const tail = wholeNumber(query, "tail");
      const follow = query.has("follow") && query.get("follow") !== "false";
      const chunks = actions.logs(decoded(logs[1] ?? ""), {
        follow,
        signal,
        ...(tail !== undefined && { tail }),
      });
      await sendLines(response, linesOf(chunks, signal), signal);
    } else if (endpoint === "GET /v1/usage") {
      const { node, records } = actions.usage(wholeNumber(query, "sinceMs") ?? 0);
      await sendLines(response, jsonLines([{ node }], records), closing);
    } else if (endpoint === "GET /v1/history") {
      sendJson(response, 200, actions.history(hoursOf(query)));
    } else if (endpoint === "POST /v1/drain") {
      const maintenance = query.has("maintenance");
      sendJson(response, 200, await actions.drain({ ...graceOf(query), ...(maintenance && { maintenance }) }));
    } else if (endpoint === "POST /v1/reclaim") {
      const forMs = wholeNumber(query, "forMs");
      const options = { ...gpusOf(query), ...graceOf(query), ...(forMs !== undefined && { forMs }) };
      sendJson(response, 200, await actions.reclaim(options));
    } else if (endpoint === "POST /v1/resume") {
      sendJson(response, 200, await actions.resume(gpusOf(query)));
    } else if (endpoint === "POST /v1/sampling/pause") {
      await actions.pauseSampling();
      sendJson(response, 200, { sampling: "paused" });
    } else if (endpoint === "POST /v1/sampling/resume") {
      await actions.resumeSampling();
      sendJson(response, 200, { sampling: "running" });
    } else if (endpoint === "POST /v1/rotate-key") sendJson(response, 200, await actions.rotateKey());
    else sendJson(response, 404, { error: { code: "not_found", message: `there is no ${endpoint}` } });
  } catch (error) {
    if (!(error instanceof GpunodeError)) throw error;
    const { code, message } = error;
    sendJson(response, code === "unknown_workload" ? 404 : code === "bad_message" ? 400 : 409, {
      error: { code, message },
    });
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) !== 0;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new GpunodeError("bad_message", `"${part.slice(0, 100)}" in the path is not URL-encoded`);
  }
}

function gpusOf(query: URLSearchParams): { gpus?: string[] } {
  const gpus = query.getAll("gpu");
  return gpus.length === 0 ? {} : { gpus };
}

function graceOf(query: URLSearchParams): { graceSeconds?: number } {
  const graceSeconds = wholeNumber(query, "graceSeconds");
  return graceSeconds === undefined ? {} : { graceSeconds };
}

function wholeNumber(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  if (!/^\d{1,15}$/.test(text)) throw new GpunodeError("bad_message", `${name}=${text}: expected a whole number`);
  return Number(text);
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(`${JSON.stringify(value)}\n`);
}

/** One line for each piece of output; an error is a line of its own. */
async function* linesOf(chunks: AsyncIterable<OutputChunk>, signal: AbortSignal): AsyncGenerator<string> {
  try {
    for await (const { stream, data } of chunks) {
      const body = isUtf8(data) ? { data: data.toString() } : { base64: data.toString("base64") };
      yield `${JSON.stringify({ stream, ...body })}\n`;
    }
  } catch (error) {
    if (signal.aborted) return;
    const { code, message } = error instanceof GpunodeError ? error : { code: "internal", message: String(error) };
    yield `${JSON.stringify({ error: { code, message } })}\n`;
  }
}

function* jsonLines(...lists: Iterable<unknown>[]): Generator<string> {
  for (const list of lists) for (const value of list) yield `${JSON.stringify(value)}\n`;
}

/** Sends lines as they come. A slow reader slows the source: nothing is read ahead of it. */
async function sendLines(
  response: ServerResponse,
  lines: Iterable<string> | AsyncIterable<string>,
  signal: AbortSignal,
): Promise<void> {
  response.writeHead(200, { "content-type": "application/x-ndjson" });
  // Whoever follows a silent workload must see that it is being followed.
  response.flushHeaders();
  try {
    await pipeline(Readable.from(lines, { highWaterMark: 1 }), response, { signal });
  } catch (error) {
    // The reader hung up, or the daemon ends: neither is a failure of ours.
    if (!signal.aborted && !isHangUp(error)) throw error;
  }
}

function isHangUp(error: unknown): boolean {
  return (error as { code?: string } | null)?.code === "ERR_STREAM_PREMATURE_CLOSE";
}
