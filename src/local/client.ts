import { readFileSync, statSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { dirname } from "node:path";
import { json } from "node:stream/consumers";
import type { Hold } from "../protocol/agent-frames.ts";
import type { History } from "./history.ts";
import type { RotatedKey, SigningNode } from "./server.ts";
import { SNAPSHOT_VERSION, type Snapshot } from "./snapshot.ts";

/** There is no daemon to ask, or this user may not; exit code 3. */
export class DaemonNotRunning extends Error {
  override readonly name = "DaemonNotRunning";
}

/** The daemon said no. `code` is the protocol's. */
export class DaemonRefused extends Error {
  override readonly name = "DaemonRefused";
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** A piece of a workload's output. */
export interface LogPiece {
  stream: "stdout" | "stderr";
  data: Buffer;
}

/** The daemon on this machine. Every method throws `DaemonNotRunning` or `DaemonRefused`. */
export interface LocalClient {
  status(options?: { signal?: AbortSignal }): Promise<Snapshot>;
  /** The last `hours`, a whole number from 1 to 24. */
  history(options: { hours: number; signal?: AbortSignal }): Promise<History>;
  /** Pieces in order, read no faster than they are taken. */
  logs(id: string, options: { follow: boolean; tail?: number; signal?: AbortSignal }): AsyncIterable<LogPiece>;
  /** Each resolves with who keeps what from being lent afterwards. */
  drain(options?: { graceSeconds?: number; maintenance?: boolean }): Promise<Hold[]>;
  /** GPUs by index or UUID; all of the machine where absent. */
  reclaim(options?: { gpus?: readonly string[]; forMs?: number; graceSeconds?: number }): Promise<Hold[]>;
  resume(options?: { gpus?: readonly string[] }): Promise<Hold[]>;
  /** Resolves when no process of the daemon has the GPUs open. */
  pauseSampling(): Promise<void>;
  resumeSampling(): Promise<void>;
  /** Usage records that end after `sinceMs`, unread, with the node whose keys signed them. */
  usage(
    sinceMs: number,
    options?: { signal?: AbortSignal },
  ): Promise<{ node: SigningNode; records: AsyncIterable<unknown> }>;
  /** A new key for the node. `DaemonRefused` with `unsupported` where the coordinator does not take it. */
  rotateKey(): Promise<RotatedKey>;
}

/** The answer of a daemon that has been asked comes within this; a hanging one shall not hang its owner's shell. */
const ANSWER_TIMEOUT_MS = 10_000;

/** No name for TLS is worked out, which takes Node 3 ms of a command: to tell names from addresses it builds a regular expression. */
const NO_TLS = { servername: "" };

/** Nothing is sent before the first method is called. */
export function connectLocal(socketPath: string): LocalClient {
  const ask = async (method: string, path: string, signal?: AbortSignal): Promise<unknown> => {
    const limit = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    const response = await send(
      socketPath,
      method,
      path,
      signal === undefined ? limit : AbortSignal.any([limit, signal]),
    );
    return json(response);
  };
  const holdsAfter = async (path: string) => ((await ask("POST", path)) as { holds: Hold[] }).holds;
  return {
    async status({ signal } = {}) {
      const snapshot = (await ask("GET", "/v1/status", signal)) as Snapshot;
      if (snapshot.snapshotVersion === SNAPSHOT_VERSION) return snapshot;
      throw new Error(
        `the running daemon speaks version ${snapshot.snapshotVersion} of the local API, this gpunode version ${SNAPSHOT_VERSION}; restart the daemon`,
      );
    },
    async history({ hours, signal }) {
      return (await ask("GET", `/v1/history?hours=${hours}`, signal)) as History;
    },
    async *logs(id, { follow, tail, signal }) {
      const query = new URLSearchParams({
        ...(follow && { follow: "" }),
        ...(tail !== undefined && { tail: `${tail}` }),
      });
      const response = await send(socketPath, "GET", `/v1/workloads/${encodeURIComponent(id)}/logs?${query}`, signal);
      try {
        for await (const line of linesOf(response)) yield pieceOf(line);
      } catch (error) {
        if (signal?.aborted === true) return;
        if (error instanceof DaemonRefused) throw error;
        throw new Error("the daemon ended while its output was read", { cause: error });
      } finally {
        response.destroy();
      }
    },
    async drain({ graceSeconds, maintenance = false } = {}) {
      const query = new URLSearchParams({
        ...(graceSeconds !== undefined && { graceSeconds: String(graceSeconds) }),
        ...(maintenance && { maintenance: "" }),
      });
      return await holdsAfter(`/v1/drain?${query}`);
    },
    async reclaim({ gpus = [], forMs, graceSeconds } = {}) {
      const query = new URLSearchParams({
        ...(forMs !== undefined && { forMs: String(forMs) }),
        ...(graceSeconds !== undefined && { graceSeconds: String(graceSeconds) }),
      });
      for (const gpu of gpus) query.append("gpu", gpu);
      return await holdsAfter(`/v1/reclaim?${query}`);
    },
    async resume({ gpus = [] } = {}) {
      return await holdsAfter(`/v1/resume?${new URLSearchParams(gpus.map((gpu): [string, string] => ["gpu", gpu]))}`);
    },
    async pauseSampling() {
      await ask("POST", "/v1/sampling/pause");
    },
    async resumeSampling() {
      await ask("POST", "/v1/sampling/resume");
    },
    async usage(sinceMs, { signal } = {}) {
      const lines = linesOf(await send(socketPath, "GET", `/v1/usage?sinceMs=${sinceMs}`, signal));
      const first = await lines.next();
      const { node } = JSON.parse(first.value ?? "{}") as { node: SigningNode };
      return { node, records: parsed(lines) };
    },
    async rotateKey() {
      return (await ask("POST", "/v1/rotate-key")) as RotatedKey;
    },
  };
}

/** Throws where the response is cut off before its end. */
async function* linesOf(response: IncomingMessage): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of response.setEncoding("utf8")) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

async function* parsed(lines: AsyncIterable<string>): AsyncGenerator<unknown> {
  for await (const line of lines) yield JSON.parse(line) as unknown;
}

function pieceOf(line: string): LogPiece {
  const piece = JSON.parse(line) as {
    stream: LogPiece["stream"];
    data?: string;
    base64?: string;
    error?: { code: string; message: string };
  };
  if (piece.error !== undefined) throw new DaemonRefused(piece.error.code, piece.error.message);
  const data = piece.base64 === undefined ? Buffer.from(piece.data ?? "") : Buffer.from(piece.base64, "base64");
  return { stream: piece.stream, data };
}

async function send(socketPath: string, method: string, path: string, signal?: AbortSignal): Promise<IncomingMessage> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ ...NO_TLS, socketPath, method, path, agent: false, ...(signal !== undefined && { signal }) })
      .once("response", resolve)
      .once("error", (error) => reject(inWords(error, socketPath)))
      .end();
  });
  if (response.statusCode === 200) return response;
  const { error } = (await json(response)) as { error?: { code: string; message: string } };
  throw new DaemonRefused(error?.code ?? "internal", error?.message ?? `the daemon answered ${response.statusCode}`);
}

function inWords(error: NodeJS.ErrnoException, socketPath: string): Error {
  const { code } = error;
  if (code === "ENOENT" || code === "ECONNREFUSED") {
    const state = code === "ENOENT" ? "there is no socket" : "nobody answers on the socket";
    return new DaemonNotRunning(
      `the daemon is not running: ${state} ${socketPath}. Start it with "sudo systemctl start gpunode", or here with "gpunode run".`,
      { cause: error },
    );
  }
  if (code === "EACCES" || code === "EPERM") {
    return new DaemonNotRunning(
      `you may not use the daemon's socket ${socketPath}: only root and members of its group may. ${remedyFor(socketPath)}`,
      { cause: error },
    );
  }
  if (error.name === "TimeoutError" || (error.cause as Error | undefined)?.name === "TimeoutError") {
    return new Error(`the daemon does not answer on ${socketPath} (waited ${ANSWER_TIMEOUT_MS / 1000} s)`, {
      cause: error,
    });
  }
  return error;
}

/** How to get in, with the socket's group if it can be found out. */
function remedyFor(socketPath: string): string {
  const group = groupOf(socketPath) ?? groupOf(dirname(socketPath));
  return group === undefined || group === "root"
    ? 'Run the command with "sudo".'
    : `Run it with "sudo", or join the group: "sudo usermod -aG ${group} $USER", then log in again.`;
}

function groupOf(path: string): string | undefined {
  try {
    const { gid } = statSync(path);
    const line = readFileSync("/etc/group", "utf8")
      .split("\n")
      .find((entry) => entry.split(":")[2] === String(gid));
    return line?.split(":")[0] ?? String(gid);
  } catch {
    return undefined;
  }
}
