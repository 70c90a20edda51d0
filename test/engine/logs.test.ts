import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { demultiplex, unixTime } from "../../src/engine/logs.ts";
import type { LogChunk } from "../../src/workload/needs.ts";
import { haveEngine } from "../support/engine.ts";
import {
  neverAborted,
  openDescriptors,
  openEngine,
  outputOf,
  pullSmallImage,
  removeAll,
  runToEnd,
  settledDescriptors,
  specFor,
  until,
} from "./harness.ts";

function frame(kind: number, text: string): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt8(kind, 0);
  header.writeUInt32BE(Buffer.byteLength(text), 4);
  return Buffer.concat([header, Buffer.from(text)]);
}

async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function joined(chunks: AsyncIterable<LogChunk>): Promise<[string, string][]> {
  const parts: [string, string][] = [];
  for await (const { stream, data } of chunks) {
    const last = parts.at(-1);
    if (last?.[0] === stream) last[1] += data.toString("latin1");
    else parts.push([stream, data.toString("latin1")]);
  }
  return parts;
}

describe("the engine's frames", () => {
  const bytes = Buffer.concat([frame(1, "first\n"), frame(2, "oops\n"), frame(1, ""), frame(1, "x".repeat(100))]);
  const parts = [
    ["stdout", "first\n"],
    ["stderr", "oops\n"],
    ["stdout", "x".repeat(100)],
  ];

  it.each([1, 3, 7, 8, 9, 1000])("are taken apart however they are cut: pieces of %i bytes", async (size) => {
    expect(await joined(demultiplex(inPieces(bytes, size)))).toEqual(parts);
  });

  it("that are none are refused, and one that breaks off gives what there is", async () => {
    await expect(joined(demultiplex(inPieces(Buffer.from("plain text, no frames"), 5)))).rejects.toThrow(
      "unknown kind",
    );
    expect(await joined(demultiplex(inPieces(bytes.subarray(0, 20), 6)))).toEqual([["stdout", "first\n"]]);
  });

  it("are read no faster than they are taken", async () => {
    let read = 0;
    async function* counted() {
      for await (const piece of inPieces(bytes, 10)) {
        read += 1;
        yield piece;
      }
    }
    const chunks = demultiplex(counted());
    await chunks.next();
    await sleep(20);
    expect(read).toBe(1);
    await chunks.return(undefined);
  });
});

it("instants become seconds with all their nanoseconds", () => {
  expect(unixTime("2026-03-01T00:00:01.123456789Z")).toBe("1772323201.123456789");
  expect(unixTime("2026-03-01T01:00:01.5+01:00")).toBe("1772323201.500000000");
  expect(unixTime("2026-03-01T00:00:01Z")).toBe("1772323201.000000000");
});

describe.runIf(haveEngine)("the output of containers", () => {
  let engine: ReturnType<typeof openEngine>;
  let image: string;

  beforeAll(async () => {
    engine = openEngine();
    image = await pullSmallImage(engine, `engine-test/logs-${process.pid}:1`);
  });
  afterEach(() => removeAll(engine));
  afterAll(() => engine[Symbol.asyncDispose]());

  it("keeps its streams apart, NUL and all", async () => {
    const write = "printf 'ä\\000a\\n'; sleep 0.2; printf 'b\\n' >&2; printf 'no end'";
    const { id } = await runToEnd(engine, specFor(engine, image, write));
    const parts = await joined(engine.logs(id, { follow: false, signal: neverAborted() }));
    expect(parts.map(([stream, text]) => [stream, Buffer.from(text, "latin1").toString()])).toEqual([
      ["stdout", "ä\0a\n"],
      ["stderr", "b\n"],
      ["stdout", "no end"],
    ]);
  });

  it("is read from the last lines or from an instant on", async () => {
    const { id } = await runToEnd(engine, specFor(engine, image, "echo 1; echo 2; sleep 1.2; echo 3; echo 4"));
    const startedAt = (await engine.inspect(id))?.startedAt ?? "";
    const since = new Date(Date.parse(startedAt) + 700).toISOString();
    const read = (how: object) => joined(engine.logs(id, { follow: false, signal: neverAborted(), ...how }));
    expect(await read({ tail: 3 })).toEqual([["stdout", "2\n3\n4\n"]]);
    expect(await read({ tail: 0 })).toEqual([]);
    expect(await read({ since })).toEqual([["stdout", "3\n4\n"]]);
  });

  it("is followed to the container's end", async () => {
    const id = await engine.create(specFor(engine, image, "echo 1; sleep 0.5; echo 2"));
    await engine.start(id);
    expect(await joined(engine.logs(id, { follow: true, signal: neverAborted() }))).toEqual([["stdout", "1\n2\n"]]);
    expect(await engine.inspect(id)).toMatchObject({ status: "exited" });
  });

  it("is followed until the signal or the reader has enough, and the connection goes", async () => {
    const id = await engine.create(specFor(engine, image, "echo up; sleep 300"));
    await engine.start(id);
    await until(async () => (await outputOf(engine, id)) === "up\n");
    const before = await settledDescriptors();
    const stop = new AbortController();
    const following = joined(engine.logs(id, { follow: true, signal: stop.signal }));
    await sleep(300);
    expect(openDescriptors()).toBeGreaterThan(before);
    stop.abort();
    expect(await following).toEqual([["stdout", "up\n"]]);
    for await (const { data } of engine.logs(id, { follow: true, signal: neverAborted() })) {
      expect(data.toString()).toBe("up\n");
      break;
    }
    await until(() => openDescriptors() <= before);
  });

  it("stays in the engine while its reader is slow, and comes whole", async () => {
    const lines = 30_000;
    const write = `yes ${"x".repeat(999)} | head -n ${lines}`;
    const { id } = await runOnly(write);
    const chunks = engine.logs(id, { follow: false, signal: neverAborted() })[Symbol.asyncIterator]();
    const first = await chunks.next();
    let bytes = first.done ? 0 : first.value.data.length;
    const held = () => process.memoryUsage().arrayBuffers + process.memoryUsage().external;
    const before = held();
    await sleep(1_500);
    // 30 MB are waiting; demuxing without back-pressure would hold all of them by now.
    expect(held() - before).toBeLessThan(4 * 1024 * 1024);
    for (let next = await chunks.next(); !next.done; next = await chunks.next()) bytes += next.value.data.length;
    expect(bytes).toBe(lines * 1000);
  });

  async function runOnly(command: string): Promise<{ id: string }> {
    const id = await engine.create(specFor(engine, image, command));
    await engine.start(id);
    await engine.wait(id, AbortSignal.timeout(20_000));
    return { id };
  }
});
