import type { LogChunk, LogOptions } from "../workload/needs.ts";
import { type EngineClient, piecesOf } from "./client.ts";
import { unavailable } from "./errors.ts";

/** Kind of stream in the first byte of a frame's header (Docker API, "Attach to a container", stream format). */
const STREAMS: Readonly<Record<number, LogChunk["stream"]>> = { 1: "stdout", 2: "stderr" };
const HEADER_BYTES = 8;

/** A container's output as it wrote it. Ends with the signal; throws `engine_unavailable` where the engine breaks off. */
export async function* readLogs(client: EngineClient, id: string, options: LogOptions): AsyncGenerator<LogChunk> {
  const { follow, tail, since, signal } = options;
  if (signal.aborted) return;
  const query = {
    stdout: "1",
    stderr: "1",
    follow: follow ? "1" : "0",
    ...(tail !== undefined && { tail: String(tail) }),
    ...(since !== undefined && { since: unixTime(since) }),
  };
  const path = `/containers/${id}/logs`;
  let stream: Awaited<ReturnType<EngineClient["open"]>>;
  try {
    // Not dockerode's own method: without `follow` that collects the whole log in memory first.
    stream = await client.open((abortSignal) => client.get(path, { query, stream: true, abortSignal }), {
      doing: `read the output of container ${id.slice(0, 12)}`,
      signal,
    });
  } catch (error) {
    if (signal.aborted) return;
    throw error;
  }
  yield* demultiplex(piecesOf(stream, signal));
}

/**
 * Takes the engine's frames apart. Nothing is collected: a frame's payload is handed on in the pieces it came in, and
 * the next piece is read only when the last one was taken. Throws where the bytes are no frames.
 */
export async function* demultiplex(pieces: AsyncIterable<Buffer>): AsyncGenerator<LogChunk> {
  let header = Buffer.alloc(0);
  let stream: LogChunk["stream"] | undefined;
  let leftBytes = 0;
  for await (const piece of pieces) {
    let rest = piece;
    while (rest.length > 0) {
      if (leftBytes === 0) {
        const missing = HEADER_BYTES - header.length;
        header = Buffer.concat([header, rest.subarray(0, missing)]);
        rest = rest.subarray(missing);
        if (header.length < HEADER_BYTES) break;
        stream = STREAMS[header.readUInt8(0)];
        leftBytes = header.readUInt32BE(4);
        if (stream === undefined)
          throw unavailable(`the engine sent output of an unknown kind (${header.toString("hex")})`);
        header = Buffer.alloc(0);
        continue;
      }
      const data = rest.subarray(0, leftBytes);
      leftBytes -= data.length;
      rest = rest.subarray(data.length);
      if (stream !== undefined) yield { stream, data };
    }
  }
}

/** RFC 3339 as the engine wants it: seconds and, with all their digits, nanoseconds. */
export function unixTime(instant: string): string {
  const seconds = Math.floor(Date.parse(instant) / 1000);
  const fraction = /\.(\d{1,9})/.exec(instant)?.[1] ?? "";
  return `${seconds}.${fraction.padEnd(9, "0")}`;
}
