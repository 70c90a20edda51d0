import { request } from "node:http";
import { expect, it } from "vitest";
import { CoordinatorClient } from "../../src/coordinator/client.ts";
import { type AgentSide, agent, api, coordinator } from "./agent-side.ts";

async function running(options: Parameters<typeof coordinator>[0] = {}) {
  const house = await coordinator(options);
  const side = agent(house.url);
  await side.start();
  await api(house, "POST", "/workloads", { id: "job", image: "busybox" });
  await side.next("assign");
  return { house, side };
}

function line(side: AgentSide, ref: string, data: string, stream = "stdout"): void {
  side.send({ type: "log", ref, workload: "job", stream, at: "2026-01-31T12:00:00.000Z", data });
}

it("streams output as it comes, in order, as text", async () => {
  const { house, side } = await running();
  const asked = fetch(`${house.apiUrl}/api/v1/workloads/job/logs?follow=1&tail=7&since=2026-01-31T11:00:00.000Z`);
  const command = await side.next("logs");
  expect(command).toMatchObject({ workload: "job", follow: true, tail: 7, since: "2026-01-31T11:00:00.000Z" });
  const response = await asked;
  expect(response.headers.get("content-type")).toBe("text/plain; charset=utf-8");
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  line(side, command.id, "one\n");
  expect(await reader?.read()).toEqual({ done: false, value: "one\n" });
  line(side, command.id, "zwei – ");
  line(side, "another-stream", "not for this reader");
  line(side, command.id, "три\n");
  side.send({ type: "logEnd", ref: command.id, reason: "end" });
  let rest = "";
  for (let piece = await reader?.read(); piece?.done === false; piece = await reader?.read()) rest += piece.value;
  expect(rest).toBe("zwei – три\n");
  expect(side.frames).toEqual([]);
});

it("as lines of JSON says which stream, and why it ended", async () => {
  const { house, side } = await running();
  const lines: unknown[] = [];
  const read = (async () => {
    for await (const piece of new CoordinatorClient(house.apiUrl, {}).logs("job", { follow: false })) lines.push(piece);
  })();
  const command = await side.next("logs");
  expect(command).toMatchObject({ follow: false });
  line(side, command.id, "oh\n", "stderr");
  side.send({ type: "logEnd", ref: command.id, reason: "end" });
  await read;
  expect(lines).toEqual([{ stream: "stderr", at: "2026-01-31T12:00:00.000Z", data: "oh\n" }, { end: "end" }]);
});

it("tells the node when the reader leaves", async () => {
  const { house, side } = await running();
  const leaving = new AbortController();
  const asked = fetch(`${house.apiUrl}/api/v1/workloads/job/logs?follow=1`, { signal: leaving.signal });
  const command = await side.next("logs");
  line(side, command.id, "x");
  await asked;
  leaving.abort();
  expect(await side.next("logsStop")).toMatchObject({ ref: command.id });
});

it("passes the node's refusal on, and says when there is no node to ask", async () => {
  const { house, side } = await running();
  side.replies.logs = { code: "unknown_workload", message: "no such workload here" };
  expect(await api(house, "GET", "/workloads/job/logs")).toMatchObject({
    status: 404,
    body: { error: { code: "unknown_workload" } },
  });
  expect((await api(house, "GET", "/workloads/nope/logs")).status).toBe(404);
  expect((await api(house, "GET", "/workloads/job/logs?tail=-1")).body.error).toMatchObject({ code: "bad_message" });
  await api(house, "POST", "/workloads", { id: "big", image: "busybox", gpus: { count: 64 } });
  expect((await api(house, "GET", "/workloads/big/logs")).body.error.code).toBe("conflict");
});

it("breaks off where the node goes", async () => {
  const { house, side } = await running();
  const asked = fetch(`${house.apiUrl}/api/v1/workloads/job/logs?follow=1`);
  const command = await side.next("logs");
  line(side, command.id, "half");
  const response = await asked;
  await side.leave();
  await expect(response.text()).rejects.toThrow();
});

const BLOCK = `${"x".repeat(65_535)}\n`;

it("loses nothing of 40 MB on the way to a reader slower than the node", { timeout: 60_000 }, async () => {
  const { house, side } = await running();
  const asked = fetch(`${house.apiUrl}/api/v1/workloads/job/logs`);
  const command = await side.next("logs");
  const blocks = 600;
  for (let i = 0; i < blocks; i++) line(side, command.id, BLOCK);
  side.send({ type: "logEnd", ref: command.id, reason: "end" });
  let bytes = 0;
  for await (const chunk of (await asked).body ?? []) {
    bytes += chunk.length;
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(bytes).toBe(blocks * BLOCK.length);
});

it("cuts a reader that stands still, and keeps the node's session", async () => {
  const { house, side } = await running({ logStallMs: 1000, heartbeatSeconds: 1 });
  const reader = await new Promise<import("node:http").IncomingMessage>((resolve) => {
    request(`${house.apiUrl}/api/v1/workloads/job/logs?follow=1`, resolve).end();
    void side.next("logs").then(({ id }) => {
      for (let i = 0; i < 600; i++) line(side, id, BLOCK);
    });
  });
  reader.on("error", () => {});
  reader.pause();
  await new Promise((resolve) => setTimeout(resolve, 500));
  // The node itself feels it: most of its 40 MB can't leave.
  expect(side.socket.bufferedAmount).toBeGreaterThan(10_000_000);
  await side.next("logsStop", 10_000);
  side.tell([{ seq: 1, kind: "node", state: "started" }]);
  expect((await side.next("ack")).seq).toBe(1);
  expect(side.closed).toBeUndefined();
  reader.destroy();
});
