import { randomBytes } from "node:crypto";
import { once, setMaxListeners } from "node:events";
import { mkdirSync } from "node:fs";
import { createServer, type IncomingMessage } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";
import { AGENT_PATH, CLOSE, HANDSHAKE_TIMEOUT_MS, HARD_FRAME_BYTES, PROTOCOL } from "../protocol/limits.ts";
import { answerApi } from "./api.ts";
import { CoordinatorDatabase } from "./database.ts";
import { authority, hostCheck, isLoopback } from "./hosts.ts";
import { type Log, SILENT } from "./log.ts";
import { Schedule } from "./schedule.ts";
import { loadSealer } from "./secrets.ts";
import { Session } from "./session.ts";
import type { SessionSettings } from "./session-doors.ts";
import { Strangers } from "./strangers.ts";

export interface CoordinatorOptions {
  /** Port 0 takes a free one. */
  listen: { host: string; port: number };
  /** Folder of the database and the key of its secrets; made with mode 0700 where it is missing. */
  stateDir: string;
  /** PEM. With it the listener speaks TLS. */
  tls?: { cert: string | Buffer; key: string | Buffer };
  /** The only tokens that admit new keys from now on. Without it those of the last start, or one made now. */
  joinTokens?: readonly string[];
  /** How many keys each of them admits; any number by default. */
  joinTokenUses?: number;
  /** Admit every key without a token; on loopback only. */
  open?: boolean;
  /** Bearer tokens of the HTTP API; needed unless it listens on loopback. */
  apiTokens?: readonly string[];
  /** Names it is reached by from outside, as agents dial them: `example.org` or `example.org:8443`. */
  publicHosts?: readonly string[];
  /** Default 10. */
  heartbeatSeconds?: number;
  /** Default 60. A node silent for longer leaves its workloads `lost` in the operator's view. */
  leaseSeconds?: number;
  /** Default 1000. */
  telemetryIntervalMs?: number;
  /** Default 10 s, as the contract says. */
  handshakeTimeoutMs?: number;
  /** Default 30 s. */
  commandTimeoutMs?: number;
  /** How long a reader of output may hold a node's socket before it is cut. Default 2 s, at most one heartbeat. */
  logStallMs?: number;
  log?: Log;
  now?: () => number;
}

export interface Coordinator extends AsyncDisposable {
  /** What agents are given as `coordinator.url`: `ws://127.0.0.1:7800`. */
  url: string;
  /** Where the HTTP API is: `http://127.0.0.1:7800`. */
  apiUrl: string;
  /** Set at the start that made it; only its hash is kept. */
  joinToken?: string;
  /** Says 1001 to the agents and ends within about two seconds. */
  close(): Promise<void>;
}

/** Starts a coordinator. Throws with a sentence for the operator where the options contradict each other or the port is taken. */
export async function startCoordinator(options: CoordinatorOptions): Promise<Coordinator> {
  const { listen, tls, log = SILENT, now = Date.now, open = false, apiTokens = [] } = options;
  requireSafe(options);
  mkdirSync(options.stateDir, { recursive: true, mode: 0o700 });
  const database = new CoordinatorDatabase(join(options.stateDir, "coordinator.db"), {
    sealer: loadSealer(join(options.stateDir, "secrets.key")),
    now,
  });
  const server = tls === undefined ? createServer(PATIENCE) : createTlsServer({ ...tls, ...PATIENCE });
  try {
    server.listen(listen.port, listen.host);
    await once(server, "listening");
  } catch (error) {
    database[Symbol.dispose]();
    throw error;
  }
  const joinToken = settleJoinTokens(database, options);
  const { port } = server.address() as { port: number };
  const hosts = hostCheck({
    listenHost: listen.host,
    port,
    secure: tls !== undefined,
    publicHosts: options.publicHosts ?? [],
  });
  const { heartbeatSeconds = 10, leaseSeconds = 60, telemetryIntervalMs = 1000 } = options;
  const settings: SessionSettings = {
    database,
    coordinatorId: database.coordinatorId(),
    hosts,
    open,
    heartbeatSeconds,
    leaseSeconds,
    telemetryIntervalMs,
    ...(options.handshakeTimeoutMs !== undefined && { handshakeTimeoutMs: options.handshakeTimeoutMs }),
    commandTimeoutMs: options.commandTimeoutMs ?? 30_000,
    logStallMs: Math.min(options.logStallMs ?? 2000, heartbeatSeconds * 1000),
    log,
    now,
  };
  const changes = new EventTarget();
  const schedule = new Schedule({
    database,
    leaseSeconds,
    log,
    now,
    onChange: () => changes.dispatchEvent(new Event("change")),
  });
  const sessions = new Set<Session>();
  const strangers = new Strangers(() => performance.now());
  const closing = new AbortController();
  // As many as there are readers of output and events.
  setMaxListeners(0, changes, closing.signal);
  const webSockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: HARD_FRAME_BYTES,
    // A client may only be answered with what it offered; one that offers nothing of ours is told so by a close code.
    handleProtocols: (offered) => (offered.has(PROTOCOL) ? PROTOCOL : ([...offered][0] ?? false)),
  });

  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on("error", (error) => log.debug({ err: error }, "socket failed"));
    const turnAway = (status: string) =>
      socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    const path = (request.url ?? "").split("?")[0];
    if (closing.signal.aborted) return void turnAway("503 Service Unavailable");
    if (path !== AGENT_PATH) return void turnAway("404 Not Found");
    // Agents are no browsers: a page of some site that finds its way here is not served.
    if (request.headers.origin !== undefined) return void turnAway("403 Forbidden");
    const stranger = strangers.enter(request.socket.remoteAddress);
    if (stranger === undefined) return void turnAway("503 Service Unavailable\r\nRetry-After: 5");
    socket.once("close", () => stranger.leave());
    webSockets.handleUpgrade(request, socket, head, (webSocket) => {
      if (webSocket.protocol !== PROTOCOL) {
        webSocket.on("error", () => webSocket.terminate());
        webSocket.close(CLOSE.noCommonVersion, `this coordinator speaks ${PROTOCOL}`);
        return;
      }
      const session = new Session(webSocket, request, schedule, settings, stranger);
      sessions.add(session);
      webSocket.once("close", () => sessions.delete(session));
    });
  });
  server.on("request", (request, response) => {
    void answerApi(request, response, {
      database,
      schedule,
      changes,
      access: { hosts, apiTokens },
      signal: closing.signal,
      log,
    });
  });

  let closed: Promise<void> | undefined;
  const close = async () => {
    closing.abort();
    const down = once(server, "close");
    server.close();
    for (const session of [...sessions]) session.close(CLOSE.goingAway, "the coordinator is going away");
    const allGone = Promise.all([...webSockets.clients].map((client) => once(client, "close")));
    const late = setTimeout(() => {
      for (const client of webSockets.clients) client.terminate();
      server.closeAllConnections();
    }, 1500);
    server.closeIdleConnections();
    await allGone;
    await down;
    clearTimeout(late);
    database[Symbol.dispose]();
  };
  const shutDown = () => {
    closed ??= close();
    return closed;
  };
  const reachable = listen.host === "0.0.0.0" ? "127.0.0.1" : listen.host === "::" ? "::1" : listen.host;
  const at = authority(reachable, port);
  return {
    url: `${tls === undefined ? "ws" : "wss"}://${at}`,
    apiUrl: `${tls === undefined ? "http" : "https"}://${at}`,
    ...(joinToken !== undefined && { joinToken }),
    close: shutDown,
    [Symbol.asyncDispose]: shutDown,
  };
}

/** A client that sends its request, or shakes hands, byte by byte is not waited for. */
const PATIENCE = {
  headersTimeout: HANDSHAKE_TIMEOUT_MS,
  requestTimeout: 3 * HANDSHAKE_TIMEOUT_MS,
  connectionsCheckingInterval: 1000,
  handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
};

function requireSafe({ listen, open, apiTokens }: CoordinatorOptions): void {
  if (isLoopback(listen.host)) return;
  if (open === true) {
    throw new Error(`open admits any node and is for loopback only; it listens on ${listen.host}: use a join token`);
  }
  if ((apiTokens ?? []).length === 0) {
    throw new Error(`listening on ${listen.host}, the HTTP API needs a token: give one with --api-token-file`);
  }
}

/** Returns the token made now, where one was: nobody will be told it again. */
function settleJoinTokens(database: CoordinatorDatabase, options: CoordinatorOptions): string | undefined {
  const { joinTokens, joinTokenUses, open = false } = options;
  if (joinTokens !== undefined) {
    database.tokens.settle(joinTokens, joinTokenUses);
    return undefined;
  }
  if (open || database.tokens.hasLasting) return undefined;
  const token = randomBytes(24).toString("base64url");
  database.tokens.settle([token], joinTokenUses);
  return token;
}
