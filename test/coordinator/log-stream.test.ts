import { expect, it } from "vitest";
import { HIGH_WATER_BYTES, LogStream, SLOW_READER } from "../../src/coordinator/log-stream.ts";

const frame = (data: string) => ({ type: "log" as const, ref: "r", workload: "w", stream: "stdout" as const, data });
const half = frame("x".repeat(HIGH_WATER_BYTES / 2));

function tapped(stallMs: number) {
  const said: string[] = [];
  const say = (word: string) => () => void said.push(word);
  return { said, stream: new LogStream({ hold: say("hold"), release: say("release"), cut: say("cut") }, { stallMs }) };
}

it("holds the socket while more than its bound waits, and lets go once it was read", async () => {
  const { said, stream } = tapped(10_000);
  stream.push(half);
  expect(said).toEqual([]);
  stream.push(half);
  stream.push(half);
  expect(said).toEqual(["hold"]);
  const reader = stream[Symbol.asyncIterator]();
  await reader.next();
  expect(said).toEqual(["hold"]);
  await reader.next();
  await reader.next();
  expect(said).toEqual(["hold", "release"]);
  stream.end("end");
  expect(await reader.next()).toEqual({ done: true, value: undefined });
  expect(said).toEqual(["hold", "release"]);
});

it("cuts a reader that does not come back, takes nothing more, and keeps what was there", async () => {
  const { said, stream } = tapped(20);
  stream.push(half);
  stream.push(half);
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(said).toEqual(["hold", "release", "cut"]);
  stream.push(frame("late"));
  stream.end("end");
  const read: number[] = [];
  for await (const { data } of stream) read.push(data.length);
  expect(read).toEqual([HIGH_WATER_BYTES / 2, HIGH_WATER_BYTES / 2]);
  expect(stream.endReason).toBe(SLOW_READER);
});

it("ends while the reader waits", async () => {
  const { stream } = tapped(20);
  const next = stream[Symbol.asyncIterator]().next();
  stream.end("end");
  expect((await next).done).toBe(true);
});
