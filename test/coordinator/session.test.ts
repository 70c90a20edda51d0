import { expect, it } from "vitest";
import { ErrorFrame } from "../../src/protocol/error-frame.ts";
import { advertise, agent, api, coordinator, eventually, newKey, scratch } from "./agent-side.ts";

const node = (seq: number, changes: Record<string, unknown> = {}) => ({
  seq,
  kind: "node",
  state: "started",
  ...changes,
});

async function seqsHeld(house: Awaited<ReturnType<typeof coordinator>>): Promise<number[]> {
  const text = await (await fetch(`${house.apiUrl}/api/v1/events`)).text();
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line).seq);
}

it("the newest session of a node wins; the older is closed with 4409", async () => {
  const house = await coordinator();
  const key = newKey();
  const first = agent(house.url, { key });
  await first.start();
  const second = agent(house.url, { key });
  await second.start();
  expect((await first.end()).code).toBe(4409);
  expect((await api(house, "GET", `/nodes/${key.id}`)).body.connected).toBe(true);
  await second.leave();
  await eventually(
    () => api(house, "GET", `/nodes/${key.id}`),
    ({ body }) => body.connected === false && body.state === "offline",
  );
});

it("stores each event once, whatever is sent again, across sessions and a restart", async () => {
  const stateDir = scratch();
  let house = await coordinator({ stateDir });
  const key = newKey();
  let side = agent(house.url, { key });
  await side.start();
  side.tell([node(1), node(2)]);
  expect((await side.next("ack")).seq).toBe(2);
  side.tell([node(2, { state: "stopping" }), node(3)]);
  expect((await side.next("ack")).seq).toBe(3);
  await side.leave();

  side = agent(house.url, { key });
  expect((await side.join({ events: { oldest: 1, newest: 4 } })).acked).toBe(3);
  side.tell([node(1), node(2), node(3), node(4)]);
  expect((await side.next("ack")).seq).toBe(4);
  expect(await seqsHeld(house)).toEqual([1, 2, 3, 4]);
  await side.leave();
  await house.close();

  house = await coordinator({ stateDir });
  side = agent(house.url, { key });
  expect((await side.join({ events: { oldest: 1, newest: 5 } })).acked).toBe(4);
  side.tell([node(4), node(5)]);
  expect((await side.next("ack")).seq).toBe(5);
  expect(await seqsHeld(house)).toEqual([1, 2, 3, 4, 5]);
});

it("does not ack beyond a hole, and takes nothing beyond it", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  side.tell([node(1), node(3), node(4)]);
  expect((await side.next("ack")).seq).toBe(1);
  side.tell([node(4)]);
  expect((await side.next("ack")).seq).toBe(1);
  expect(await seqsHeld(house)).toEqual([1]);
  side.tell([node(2), node(3), node(4)]);
  expect((await side.next("ack")).seq).toBe(4);
  expect(await seqsHeld(house)).toEqual([1, 2, 3, 4]);
});

it("goes over what a gap event says is lost", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  side.tell([node(1), { seq: 2, kind: "gap", fromSeq: 2, toSeq: 9, reason: "disk full" }, node(10)]);
  expect((await side.next("ack")).seq).toBe(10);
  side.tell([{ seq: 20, kind: "gap", fromSeq: 11, toSeq: 19, reason: "disk full" }, node(21)]);
  expect((await side.next("ack")).seq).toBe(21);
  expect(await seqsHeld(house)).toEqual([1, 2, 10, 20, 21]);
});

it("begins where the node's log begins, when an older coordinator acked the rest", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  expect((await side.join({ events: { oldest: 500, newest: 501 } })).acked).toBe(499);
  side.tell([node(500), node(501)]);
  expect((await side.next("ack")).seq).toBe(501);
});

it("keeps an event of a kind it does not know, and refuses one of a kind it knows that is broken", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  side.tell([node(1), { seq: 2, kind: "aurora", colour: "green" }]);
  expect((await side.next("ack")).seq).toBe(2);
  side.tell([node(3), { seq: 4, kind: "node", state: "asleep" }, node(5)]);
  expect((await side.next("ack")).seq).toBe(3);
  expect(await side.next("error")).toMatchObject({ code: "bad_message", message: expect.stringContaining("events.1") });
  expect(side.closed).toBeUndefined();
});

it.each([
  ["not JSON", "nonsense", { code: "bad_message" }],
  ["an array", "[]", { code: "bad_message" }],
  ["no type", "{}", { code: "bad_message" }],
  ["an unknown type", '{"type":"dance","id":"d-1"}', { code: "unsupported", ref: "d-1" }],
  ["a type every object has", '{"type":"constructor"}', { code: "unsupported" }],
  ["a frame of the other direction", '{"type":"assign","id":"a"}', { code: "unsupported", ref: "a" }],
  ["a second hello", '{"type":"hello"}', { code: "bad_message" }],
  ["a broken advertisement", '{"type":"advertise","gpus":7}', { code: "bad_message" }],
  ["events that are no list", '{"type":"events","events":{}}', { code: "bad_message" }],
  ["an event without seq", '{"type":"events","events":[{"kind":"node"}]}', { code: "bad_message" }],
  ["over 1 MiB", JSON.stringify({ type: "telemetry", fill: "é".repeat(600_000) }), { code: "bad_message" }],
])("answers %s with an error, and the session goes on", async (_name, text, error) => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  side.send(text);
  expect(await side.next("error")).toMatchObject(error);
  side.tell([node(1)]);
  await side.until(() => side.frames.find((frame) => frame.type === "ack" && frame.seq === 1), "ack 1");
});

it("refuses binary frames, ends a flood with 4400 and a giant frame with 1009", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  side.socket.send(Buffer.from("{}"), { binary: true });
  expect((await side.next("error")).message).toMatch(/binary/);
  for (let i = 0; i < 100; i++) side.send("x");
  expect((await side.end()).code).toBe(4400);

  const giant = agent(house.url);
  await giant.start();
  giant.send("x".repeat(9 * 1024 * 1024));
  expect((await giant.end()).code).toBe(1009);
});

it("never answers an error with an error", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  side.send({ type: "error", code: "unsupported", message: "what?" });
  side.tell([node(1)]);
  await side.next("ack");
  expect(side.frames).toEqual([]);
});

it("pings, and ends a session that has been silent for two heartbeats, not one that answers", async () => {
  const house = await coordinator({ heartbeatSeconds: 1 });
  const silent = agent(house.url, { autoPong: false });
  const alive = agent(house.url);
  await Promise.all([silent.start(), alive.start()]);
  const begun = performance.now();
  let pings = 0;
  alive.socket.on("ping", () => {
    pings += 1;
  });
  await silent.end(4000);
  const tookMs = performance.now() - begun;
  expect(tookMs).toBeGreaterThan(1900);
  expect(tookMs).toBeLessThan(2900);
  await new Promise((resolve) => setTimeout(resolve, 700));
  expect(alive.closed).toBeUndefined();
  expect(pings).toBeGreaterThanOrEqual(2);
});

it("says 1001 when it goes away, and leaves no socket and no timer behind, even where a peer does not answer", async () => {
  const house = await coordinator({ heartbeatSeconds: 30 });
  const polite = agent(house.url);
  const rude = agent(house.url);
  await Promise.all([polite.start(), rude.start()]);
  const greeted = agent(house.url);
  await greeted.next("challenge");
  const following = await fetch(`${house.apiUrl}/api/v1/events?follow=1`);
  rude.socket.pause();
  const begun = performance.now();
  await house.close();
  expect(performance.now() - begun).toBeLessThan(2500);
  expect((await polite.end()).code).toBe(1001);
  expect(await following.text()).toBe("");
  rude.socket.terminate();
  await greeted.end();
  const left = process.getActiveResourcesInfo().filter((kind) => /TCPServer/.test(kind));
  expect(left).toEqual([]);
  await expect(fetch(house.apiUrl)).rejects.toThrow();
});

it("keeps the newest telemetry and forgets it with the session", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  const path = `/nodes/${side.key.id}/telemetry`;
  expect((await api(house, "GET", path)).body.error.code).toBe("not_found");
  const at = "2026-01-31T12:00:00.000Z";
  for (const skipped of [0, 3])
    side.send({ type: "telemetry", at, gpus: [{ uuid: "GPU-0" }], host: {}, workloads: [], skipped });
  side.tell([node(1)]);
  await side.next("ack");
  expect((await api(house, "GET", path)).body).toEqual({
    at,
    gpus: [{ uuid: "GPU-0" }],
    host: {},
    workloads: [],
    skipped: 3,
  });
  await side.leave();
  const gone = await eventually(
    () => api(house, "GET", path),
    ({ status }) => status === 503,
  );
  expect(gone.body.error.code).toBe("node_offline");
});

it("tells what nodes advertised, and keeps it over a restart", async () => {
  const stateDir = scratch();
  const first = await coordinator({ stateDir });
  const side = agent(first.url);
  await side.start(advertise({ problems: [{ code: "driver_mismatch", message: "reboot" }] }));
  await eventually(
    () => api(first, "GET", "/nodes"),
    ({ body }) => body.nodes[0]?.gpus !== undefined,
  );
  await first.close();
  const second = await coordinator({ stateDir });
  const [told] = (await api(second, "GET", "/nodes")).body.nodes;
  expect(told).toMatchObject({
    id: side.key.id,
    name: "rig",
    labels: { site: "garage" },
    state: "offline",
    gpus: [{ uuid: "GPU-0" }],
    problems: [{ code: "driver_mismatch" }],
  });
});

it("says what is wrong of a frame with an id that is none, in a frame of the contract", async () => {
  const house = await coordinator();
  const side = agent(house.url);
  await side.start();
  side.send({ type: "nonsense", id: null });
  const complaint = await side.next("error");
  expect(ErrorFrame.safeParse(complaint).error).toBeUndefined();
  expect(complaint.message).toContain('"nonsense"');
  await side.leave();
});
