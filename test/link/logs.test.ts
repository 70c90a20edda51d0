import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import type { LinkDoors, LogPiece, LogsCommand } from "../../src/link/needs.ts";
import { GpunodeError } from "../../src/protocol/errors.ts";
import type { FakeSession, Frame } from "../support/fake-coordinator.ts";
import { eventually, fakeCoordinator, startAgent } from "./harness.ts";

async function joined(openLogs: LinkDoors["openLogs"]) {
  const coordinator = await fakeCoordinator();
  const side = startAgent({ url: coordinator.url, doors: { openLogs } });
  const session = await coordinator.next();
  await session.start();
  return { coordinator, side, session };
}

/** All frames of a stream up to and with its end. */
async function stream(session: FakeSession, ref: string, timeoutMs = 5000): Promise<Frame[]> {
  await session.until(
    () => session.frames.find((frame) => frame.type === "logEnd" && frame.ref === ref),
    "logEnd",
    timeoutMs,
  );
  const frames = session.frames.filter((frame) => frame.ref === ref && frame.type !== "reply");
  session.frames.splice(0);
  return frames;
}

function text(frames: Frame[], name: "stdout" | "stderr"): string {
  return frames
    .filter((frame) => frame.stream === name)
    .map((frame) => frame.data)
    .join("");
}

describe("logs", () => {
  it("come as text in order, each stream by itself, and end with one logEnd", async () => {
    const asked: LogsCommand[] = [];
    const { session } = await joined((command) => {
      asked.push(command);
      return pieces([
        ["stdout", "one\n"],
        ["stderr", "oops\n"],
        ["stdout", "two\n"],
      ]);
    });
    session.send({ type: "logs", id: "l1", workload: "w", tail: 100 });
    const reply = await session.next("reply");
    expect(reply).toEqual({ type: "reply", ref: "l1", ok: true });
    expect(await stream(session, "l1")).toEqual([
      { type: "log", ref: "l1", workload: "w", stream: "stdout", data: "one\n" },
      { type: "log", ref: "l1", workload: "w", stream: "stderr", data: "oops\n" },
      { type: "log", ref: "l1", workload: "w", stream: "stdout", data: "two\n" },
      { type: "logEnd", ref: "l1", reason: "end" },
    ]);
    expect(asked).toEqual([{ type: "logs", id: "l1", workload: "w", follow: false, tail: 100 }]);
  });

  it("keep characters whole that the source cuts, on both streams at once", async () => {
    const sample = "žluťoučký kůň 😀 日本語\n".repeat(20);
    const bytes = Buffer.from(sample);
    const { session } = await joined(async function* () {
      for (let at = 0; at < bytes.length; at += 1) {
        yield { stream: "stdout", data: bytes.subarray(at, at + 1) };
        yield { stream: "stderr", data: bytes.subarray(at, at + 1) };
      }
    });
    session.send({ type: "logs", id: "l", workload: "w" });
    const frames = await stream(session, "l");
    expect(text(frames, "stdout")).toBe(sample);
    expect(text(frames, "stderr")).toBe(sample);
    for (const { data } of frames.slice(0, -1)) expect(data).not.toContain("\ufffd");
  });

  it("of one huge piece come in frames the contract allows, whatever bytes it has", async () => {
    const odd = Buffer.from(Array.from({ length: 3 * 1024 * 1024 }, (_, index) => (index * 7) % 256));
    const control = Buffer.alloc(2 * 1024 * 1024, 1);
    const smileys = Buffer.from("😀".repeat(300_000));
    const { session } = await joined(() =>
      pieces([
        ["stdout", odd],
        ["stdout", control],
        ["stderr", smileys],
      ]),
    );
    session.send({ type: "logs", id: "l", workload: "w" });
    const frames = await stream(session, "l", 20_000);
    for (const frame of frames) expect(Buffer.byteLength(JSON.stringify(frame))).toBeLessThan(1024 * 1024);
    expect(text(frames, "stderr")).toBe(smileys.toString());
    for (const frame of frames.filter(({ stream: name }) => name === "stderr"))
      expect(frame.data.isWellFormed()).toBe(true);
    expect(text(frames, "stdout")).toBe(Buffer.concat([odd, control]).toString());
  }, 30_000);

  it("of a workload that is not there are refused", async () => {
    const { session } = await joined((command) => {
      throw new GpunodeError("unknown_workload", `this node has no workload "${command.workload}"`);
    });
    const reply = await session.command({ type: "logs", workload: "nobody" });
    expect(reply).toMatchObject({ ok: false, error: { code: "unknown_workload" } });
    expect(session.frames).toEqual([]);
  });

  it("that break off end with the reason", async () => {
    const { session } = await joined(async function* ({ workload }) {
      yield { stream: "stdout", data: Buffer.from("first") };
      if (workload === "gone") throw new GpunodeError("engine_unavailable", "the engine does not answer");
      throw new Error("canary");
    });
    session.send({ type: "logs", id: "l1", workload: "gone" });
    expect((await stream(session, "l1")).at(-1)).toMatchObject({ reason: "the engine does not answer" });
    session.send({ type: "logs", id: "l2", workload: "bug" });
    const frames = await stream(session, "l2");
    expect(frames.map(({ type }) => type)).toEqual(["log", "logEnd"]);
    expect(frames.at(-1)).toMatchObject({ reason: "internal" });
  });

  it("are stopped by logsStop, also where the source hangs, and stopping again is no error", async () => {
    const signals: AbortSignal[] = [];
    const { session } = await joined(async function* (_command, signal) {
      signals.push(signal);
      yield { stream: "stdout", data: Buffer.from("hello") };
      await new Promise(() => undefined);
    });
    session.send({ type: "logs", id: "l", workload: "w", follow: true });
    await session.next("log");
    expect(signals[0]?.aborted).toBe(false);
    expect(await session.command({ type: "logsStop", ref: "l" })).toMatchObject({ ok: true });
    expect(await session.next("logEnd")).toEqual({ type: "logEnd", ref: "l", reason: "stopped" });
    expect(signals[0]?.aborted).toBe(true);
    expect(await session.command({ type: "logsStop", ref: "l" })).toMatchObject({ ok: true });
    expect(await session.command({ type: "logsStop", ref: "never" })).toMatchObject({ ok: true });
  });

  it("asked for twice with the same id are one stream", async () => {
    let opened = 0;
    const { session } = await joined((_command, signal) => {
      opened += 1;
      return silence(signal);
    });
    await session.command({ type: "logs", id: "l", workload: "w", follow: true });
    expect(await session.command({ type: "logs", id: "l", workload: "w", follow: true })).toMatchObject({ ok: true });
    expect(opened).toBe(1);
  });

  it("are a hundred at a time at most", async () => {
    const { session } = await joined((_command, signal) => silence(signal));
    for (let index = 0; index < 100; index += 1) {
      expect(await session.command({ type: "logs", id: `l${index}`, workload: "w" })).toMatchObject({ ok: true });
    }
    expect(await session.command({ type: "logs", workload: "w" })).toMatchObject({
      ok: false,
      error: { code: "policy_denied" },
    });
    await session.command({ type: "logsStop", ref: "l0" });
    await session.next("logEnd");
    expect(await session.command({ type: "logs", workload: "w" })).toMatchObject({ ok: true });
  });

  it("end with the session", async () => {
    let live = 0;
    const { coordinator, session, side } = await joined(async function* (_command, signal) {
      live += 1;
      try {
        while (!signal.aborted) {
          yield { stream: "stdout", data: Buffer.from("tick\n") };
          await sleep(1, undefined, { signal }).catch(() => undefined);
        }
      } finally {
        live -= 1;
      }
    });
    session.send({ type: "logs", id: "l", workload: "w", follow: true });
    await session.next("log");
    expect(live).toBe(1);
    coordinator.cut();
    await eventually(() => live === 0, "the source was closed");
    await (await coordinator.next()).start();
    await side.stop();
    expect(live).toBe(0);
  });

  it("wait for a slow reader, lose nothing, and let other frames through", async () => {
    const block = Buffer.alloc(32 * 1024, "x");
    let given = 0;
    const { session } = await joined(async function* (_command, signal) {
      for (; given < 1600 && !signal.aborted; given += 1) {
        yield { stream: "stdout", data: Buffer.concat([Buffer.from(`${given}|`), block]) };
      }
    });
    session.send({ type: "logs", id: "l", workload: "w", follow: true });
    await session.next("log");
    session.socket.pause();
    let before = -1;
    await eventually(
      () => {
        const stands = given === before;
        before = given;
        return stands && given > 0;
      },
      "the source stands still",
      10_000,
    );
    await sleep(300);
    expect(given).toBe(before);
    // 50 MiB were there to be had.
    expect(given).toBeLessThan(800);
    expect(process.memoryUsage().arrayBuffers).toBeLessThan(64 * 1024 * 1024);
    session.socket.resume();
    expect(await session.command({ type: "resume" })).toMatchObject({ ok: true });
    const frames = await stream(session, "l", 20_000);
    const numbers = text(frames, "stdout")
      .split(/x+/)
      .filter((part) => part !== "");
    expect(numbers.at(-1)).toBe("1599|");
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, index) => `${1600 - numbers.length + index}|`));
  }, 40_000);
});

async function* pieces(list: [LogPiece["stream"], string | Buffer][]): AsyncGenerator<LogPiece> {
  for (const [name, data] of list) yield { stream: name, data: Buffer.from(data) };
}

/** A source that is open and says nothing. */
async function* silence(signal: AbortSignal): AsyncGenerator<LogPiece> {
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
  yield* [];
}
