import { Agent, type AgentOptions } from "node:http";
import type { Readable } from "node:stream";
import Docker from "dockerode";
import type * as z from "zod";
import { type ErrorCode, GpunodeError } from "../protocol/errors.ts";
import { describeIssues } from "../protocol/parse.ts";
import { EngineSilent, translate, unavailable } from "./errors.ts";

/**
 * How this room talks to the engine: each call has a limit of its own, and ends with the caller's signal.
 *
 * dockerode's promises are never trusted to settle: when dockerd dies in the middle of an answer they stay pending for
 * ever, with or without an abort. Each is raced with its limit. dockerode's own `timeout` option is of no use, since it
 * also cuts streams that have nothing to say.
 */
export interface EngineClient extends Disposable {
  readonly docker: Docker;
  /** One request with one short answer. Throws `engine_unavailable`, the signal's reason, or what `translate` makes of it. */
  ask<T>(call: (abortSignal: AbortSignal) => Promise<T>, options: AskOptions): Promise<T>;
  /** For `ask` and `open`, where dockerode has a method that leaves the signal out or reads a stream to its end. */
  get(
    path: string,
    options: { query?: Record<string, string>; stream?: boolean; authconfig?: object; abortSignal: AbortSignal },
  ): Promise<unknown>;
  /** A request whose answer is a stream. The limit holds until the answer begins; the signal destroys the stream later too. */
  open(call: (abortSignal: AbortSignal) => Promise<unknown>, options: AskOptions): Promise<Readable>;
}

interface AskOptions {
  /** What is being done, for the message: "start the container". */
  doing: string;
  /** Default: `ANSWER_MS`. */
  timeoutMs?: number;
  signal?: AbortSignal | undefined;
  /** Code of an error that `errors.ts` does not know; default `internal`. */
  otherwise?: ErrorCode;
  /** Takes what must not be told out of the engine's words. */
  hide?(words: string): string;
}

/** A living engine answers an inspect in milliseconds; on a machine that swaps, in a few seconds. */
const ANSWER_MS = 10_000;
/** Making the file system of a container on a slow disk. */
export const CREATE_MS = 60_000;
/** The NVIDIA hook loads kernel modules on the first start after a boot. */
export const START_MS = 120_000;
/** Deleting a container that wrote many gigabytes. */
export const REMOVE_MS = 120_000;

/** Opens nothing yet: each call connects for itself. */
export function engineClient(socketPath: string, limits: { answerMs?: number } = {}): EngineClient {
  // A pooled connection would outlive a restart of the engine and fail the next call; a unix socket costs nothing to open.
  // Nor has it a name for TLS: Node would work one out for each call, and builds a regular expression for the first.
  const agent = new Agent({ keepAlive: false, servername: "" } as AgentOptions);
  // The types do not know the option, docker-modem's code does.
  const docker = new Docker({ socketPath, agent } as Docker.DockerOptions);

  async function raced<T>(call: (signal: AbortSignal) => Promise<T>, options: AskOptions, link: Link): Promise<T> {
    const timeoutMs = options.timeoutMs ?? limits.answerMs ?? ANSWER_MS;
    const limit = Promise.withResolvers<never>();
    const timer = setTimeout(() => limit.reject(new EngineSilent(timeoutMs)), timeoutMs);
    link.aborted.catch((reason: unknown) => limit.reject(reason));
    try {
      return await Promise.race([call(link.signal), limit.promise]);
    } catch (error) {
      link.abort();
      if (options.signal?.aborted) throw options.signal.reason;
      throw translate(error, options.doing, { ...options, socketPath });
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    docker,
    get(path, { query, stream, authconfig, abortSignal }) {
      // docker-modem adds the query itself, and cuts the last letter off a path that comes with one.
      const options = query ?? {};
      const target = query === undefined ? path : `${path}?`;
      return new Promise((resolve, reject) => {
        docker.modem.dial(
          {
            path: target,
            method: "GET",
            options,
            isStream: stream ?? false,
            authconfig,
            abortSignal,
            statusCodes: { 200: true },
          },
          (error: unknown, answer: unknown) => (error ? reject(error) : resolve(answer)),
        );
      });
    },
    async ask(call, options) {
      using link = linkTo(options.signal);
      return await raced(call, options, link);
    },
    async open(call, options) {
      const link = linkTo(options.signal);
      try {
        const stream = (await raced(call, options, link)) as Readable;
        // Readers are told by their iterator; without a listener the same error would end the process.
        stream.on("error", () => undefined);
        link.aborted.catch((reason: Error) => stream.destroy(reason));
        stream.once("close", () => link[Symbol.dispose]());
        return stream;
      } catch (error) {
        link[Symbol.dispose]();
        throw error;
      }
    },
    // Whatever is still open, e.g. the output of a container that is being followed, breaks off.
    [Symbol.dispose]: () => agent.destroy(),
  };
}

interface Link extends Disposable {
  /** Given to dockerode: aborting it destroys the connection. */
  signal: AbortSignal;
  /** Rejects with the caller's reason; never resolves. */
  aborted: Promise<never>;
  abort(): void;
}

/** A signal of our own that follows the caller's until it is disposed of; `AbortSignal.any` would never let go of it. */
function linkTo(signal: AbortSignal | undefined): Link {
  signal?.throwIfAborted();
  const own = new AbortController();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  aborted.catch(() => undefined);
  const follow = () => {
    reject(signal?.reason);
    own.abort();
  };
  signal?.addEventListener("abort", follow, { once: true });
  return {
    signal: own.signal,
    aborted,
    abort: () => own.abort(),
    [Symbol.dispose]: () => signal?.removeEventListener("abort", follow),
  };
}

/** What the engine said, as the type it should have; an engine that says something else is not Docker. */
export function parseAnswer<T>(schema: z.ZodType<T>, answer: unknown, what: string): T {
  const parsed = schema.safeParse(answer);
  if (parsed.success) return parsed.data;
  const words = describeIssues(parsed.error);
  throw new GpunodeError("internal", `the engine's answer about ${what} is not the Docker API's: ${words}`);
}

/** Pieces of an engine's stream as they come. Throws `engine_unavailable` where it breaks off, nothing after an abort. */
export async function* piecesOf(stream: Readable, signal?: AbortSignal): AsyncGenerator<Buffer> {
  try {
    for await (const piece of stream) yield piece as Buffer;
  } catch (error) {
    if (signal?.aborted) return;
    throw unavailable("the engine broke off in the middle of an answer", error);
  } finally {
    stream.destroy();
  }
}

/** No object in the engine's streams comes near this; one that does is not read to its end. */
const LINE_MOST_BYTES = 1024 * 1024;

/** The objects of a stream of JSON lines (events, progress of a pull). A line that is not JSON is left out. */
export async function* jsonLines(pieces: AsyncIterable<Buffer>): AsyncGenerator<unknown> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const piece of pieces) {
    const lines = (rest + decoder.decode(piece, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > LINE_MOST_BYTES) throw unavailable("the engine sends a line without an end");
    for (const line of lines) {
      const value = parseJson(line);
      if (value !== undefined) yield value;
    }
  }
  const last = parseJson(rest);
  if (last !== undefined) yield last;
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
