import { describe, expect, it } from "vitest";
import { eventually, fakeCoordinator, nodeEvents, scratch, startAgent } from "./harness.ts";

function seqs(events: { [key: string]: unknown }[]): number[] {
  return events.map(({ seq }) => Number(seq));
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

describe("events", () => {
  it("written before and during the session come in order, and are let go when acked", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, events: nodeEvents(2) });
    const session = await coordinator.next();
    await session.start();
    expect(await session.events(2)).toEqual([
      { seq: 1, at: expect.any(String), kind: "node", state: "started", reason: "x1" },
      { seq: 2, at: expect.any(String), kind: "node", state: "started", reason: "x2" },
    ]);
    const told = side.store.told(3, 5000);
    side.store.append(nodeEvents(1));
    expect(seqs(await session.events(3))).toEqual([3]);
    expect(side.store.oldest).toBe(1);
    session.send({ type: "ack", seq: 3 });
    expect(await told).toBe(true);
    expect(side.store.oldest).toBe(4);
    expect(side.store.after(0, 10, 1000)).toEqual([]);
  });

  it("not acked come again in the next session, from exactly there", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, events: nodeEvents(10) });
    const first = await coordinator.next();
    await first.start();
    await first.events(10);
    first.send({ type: "ack", seq: 4 });
    await eventually(() => side.store.oldest === 5, "ack taken");
    coordinator.cut();
    const second = await coordinator.next();
    // What was stored after the last ack that arrived is not sent again.
    await second.start({ acked: 7 });
    expect(seqs(await second.events(10))).toEqual([8, 9, 10]);
    expect(side.store.oldest).toBe(8);
  });

  it("survive the agent, and go on with the same numbers", async () => {
    const coordinator = await fakeCoordinator();
    const dir = scratch();
    await startAgent({ url: "ws://127.0.0.1:1", dir, events: nodeEvents(3) }).stop();
    startAgent({ url: coordinator.url, dir, events: nodeEvents(1, "later") });
    const session = await coordinator.next();
    await session.start();
    const events = await session.events(4);
    expect(events.map((event) => [event.seq, event.reason])).toEqual([
      [1, "x1"],
      [2, "x2"],
      [3, "x3"],
      [4, "later1"],
    ]);
  });

  it("of a long absence come in frames of bounded size, no more than a few at a time without an ack", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, events: nodeEvents(12_000, "x".repeat(200)) });
    const session = await coordinator.next();
    await session.start();
    let last = 0;
    const seen: number[] = [];
    let mostAtOnce = 0;
    while (last < 12_000) {
      await session.until(() => session.frames.find(({ type }) => type === "events"), "events");
      await new Promise((resolve) => setTimeout(resolve, 5));
      const frames = session.frames.splice(0);
      mostAtOnce = Math.max(mostAtOnce, frames.length);
      for (const frame of frames) {
        expect(Buffer.byteLength(JSON.stringify(frame))).toBeLessThan(256 * 1024);
        seen.push(...seqs(frame.events));
      }
      last = seen.at(-1) ?? 0;
      session.send({ type: "ack", seq: last });
    }
    expect(seen).toEqual(range(1, 12_000));
    expect(mostAtOnce).toBeLessThanOrEqual(4);
    await eventually(() => side.store.oldest === 12_001, "all let go");
  }, 60_000);

  it("do not pile up in memory where the coordinator does not read", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, ackTimeoutMs: 50 });
    const session = await coordinator.next();
    await session.start();
    session.socket.pause();
    side.store.append(nodeEvents(20_000, "x".repeat(200)));
    const before = process.memoryUsage();
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const after = process.memoryUsage();
    // Sent again every 50 ms it would be 40 MiB by now; what is held is at most what the socket may owe.
    expect(after.external + after.arrayBuffers - before.external - before.arrayBuffers).toBeLessThan(8 * 1024 * 1024);
    session.socket.resume();
    await session.events(1);
  }, 20_000);

  it("are sent again when no ack comes, and the repeats do no harm", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, ackTimeoutMs: 100, events: nodeEvents(3) });
    const session = await coordinator.next();
    await session.start();
    expect(seqs(await session.events(3))).toEqual([1, 2, 3]);
    session.send({ type: "ack", seq: 1 });
    expect(seqs(await session.events(3))).toEqual([2, 3]);
    session.send({ type: "ack", seq: 3 });
    await eventually(() => side.store.oldest === 4, "all acked");
    await new Promise((resolve) => setTimeout(resolve, 250));
    expect(session.frames.filter(({ type }) => type === "events")).toEqual([]);
  });

  it("go on above what the coordinator holds where the node lost its disk", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, events: nodeEvents(2) });
    const session = await coordinator.next();
    await session.start({ acked: 57 });
    expect((await session.events(59)).map((event) => [event.seq, event.reason])).toEqual([
      [58, "x1"],
      [59, "x2"],
    ]);
    session.send({ type: "ack", seq: 59 });
    await eventually(() => side.store.oldest === 60, "acked");
  });

  it("that a coordinator has forgotten are told as a gap", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, events: nodeEvents(5) });
    const first = await coordinator.next();
    await first.start();
    await first.events(5);
    first.send({ type: "ack", seq: 3 });
    await eventually(() => side.store.oldest === 4, "acked");
    coordinator.cut();
    const second = await coordinator.next();
    expect((await second.start({ acked: 0 })).events).toEqual({ oldest: 4, newest: 5 });
    const events = await second.events(5);
    expect(events).toMatchObject([{ seq: 1, kind: "gap", fromSeq: 1, toSeq: 3 }, { seq: 4 }, { seq: 5 }]);
    second.send({ type: "ack", seq: 5 });
    await eventually(() => side.store.oldest === 6, "acked");
    coordinator.cut();

    const third = await coordinator.next();
    expect((await third.start({ acked: 2 })).events).toEqual({ oldest: 6, newest: 5 });
    await eventually(() => third.frames.some(({ type }) => type === "events"), "the gap");
    const [frame] = third.frames.filter(({ type }) => type === "events");
    expect(frame?.events).toMatchObject([{ seq: 3, kind: "gap", fromSeq: 3, toSeq: 5 }]);
  });

  it("are not let go by an ack of what was never written", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, events: nodeEvents(2) });
    const session = await coordinator.next();
    await session.start();
    await session.events(2);
    session.send({ type: "ack", seq: 3 });
    expect(await session.next("error")).toMatchObject({
      code: "bad_message",
      message: expect.stringContaining("newest is 2"),
    });
    session.send({ type: "ack", seq: -1 });
    expect(await session.next("error")).toMatchObject({ code: "bad_message" });
    expect(side.store.oldest).toBe(1);
    session.send({ type: "ack", seq: 2 });
    await eventually(() => side.store.oldest === 3, "the right ack taken");
  });
});
