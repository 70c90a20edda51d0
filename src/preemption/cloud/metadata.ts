import { type IncomingMessage, type RequestOptions, request } from "node:http";
import type { ZodType } from "zod";

/** What a cloud tells of this machine's end, or of what is about to befall it. */
export interface Notice {
  /** The same for as long as it says the same; what is told again is not judged again. */
  key: string;
  work: "stop" | "stop_in_time" | "warn";
  /** When it happens, by the wall clock, milliseconds since the epoch. undefined: now, or nobody knows. */
  at?: number;
  message: string;
}

/** The notices of one cloud. */
export interface CloudNotices {
  /** Time between two looks where all is well. */
  readonly intervalMs: number;
  /** The complete set of what is told now. Throws where the service does not answer, or not as it should. */
  read(now: number, signal: AbortSignal): Promise<Notice[]>;
}

export interface Answer {
  status: number;
  headers: IncomingMessage["headers"];
  body: string;
}

export interface Ask {
  method?: "GET" | "PUT";
  headers: Readonly<Record<string, string>>;
  /** Instead of the usual one. */
  timeoutMs?: number;
}

/** Speaks to one metadata service. */
export interface MetadataClient {
  get(path: string, ask: Ask, signal: AbortSignal): Promise<Answer>;
}

/** All these services sit on the same machine, or beside it: one that takes longer is not answering. */
const TIMEOUT_MS = 2_000;
/** The longest answer there is has some 10 KiB. */
const BODY_BYTES = 64 * 1024;

/**
 * A client for `http://host[:port]`. It follows no redirect (that is an answer like another), knows no proxy, and reads no more of an answer than
 * these services ever say.
 */
export function metadataClient(base: string, timeoutMs: number = TIMEOUT_MS): MetadataClient {
  const { hostname, port } = new URL(base);
  return {
    async get(path, { method = "GET", headers, timeoutMs: ownTimeoutMs = timeoutMs }, signal) {
      // Of the whole exchange: one that drips is no better than one that hangs.
      const late = AbortSignal.timeout(ownTimeoutMs);
      try {
        // A connection for each: one that is kept is closed by the other side just when it is wanted.
        const options = {
          agent: false,
          hostname: hostname.replace(/^\[|\]$/g, ""),
          port: port || 80,
          path,
          method,
          headers,
        };
        return await exchange({ ...options, signal: AbortSignal.any([signal, late]) });
      } catch (error) {
        if (late.aborted)
          throw new Error(`${method} ${path} was not answered within ${ownTimeoutMs} ms`, { cause: error });
        throw error;
      }
    },
  };
}

async function exchange(options: RequestOptions): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const sent = request(options, resolve);
  sent.on("error", reject);
  sent.end();
  const answer = await promise;
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES) throw new Error(`the answer is longer than ${BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  // Cut off in the middle, it is no answer.
  if (!answer.complete) throw new Error("the answer was cut off");
  return { status: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(chunks).toString("utf8") };
}

/** The body of an answer that must be 200. */
export function bodyOf({ status, body }: Answer, path: string): string {
  if (status !== 200) throw new Error(`${path} was answered with HTTP ${status}`);
  return body;
}

/** The body as JSON, by a schema. Throws an error that says what was asked for. */
export function jsonOf<T>(body: string, path: string, schema: ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    value = undefined;
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new Error(`${path} was answered with something else than is documented`);
  return parsed.data;
}
