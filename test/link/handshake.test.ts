import { describe, expect, it } from "vitest";
import { DurableEvent } from "../../src/protocol/event.ts";
import { eventually, fakeCoordinator, linkState, nodeEvents, scratch, startAgent } from "./harness.ts";

describe("handshake", () => {
  it("proves the key, says what the node holds, and is welcomed", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, events: nodeEvents(3) });
    const session = await coordinator.next();
    expect(session.socket.protocol).toBe("gpunode.v1");
    expect(session.request.url).toBe("/v1/agent");
    expect(session.request.headers["sec-websocket-extensions"]).toBeUndefined();
    session.challenge({ later: "unknown fields are ignored" });
    const hello = await session.next("hello");
    session.verify(hello);
    expect(hello).toEqual({
      type: "hello",
      node: {
        id: side.nodeId,
        publicKey: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/),
        name: "rig",
        labels: { site: "garage" },
        bootId: "boot",
        agentVersion: "9.9.9",
      },
      signature: expect.stringMatching(/^[A-Za-z0-9_-]{86}$/),
      events: { oldest: 1, newest: 3 },
      workloads: [{ id: "w", generation: 3, state: "running" }],
    });
    expect(side.link.status().state).toBe("connecting");
    session.welcome({ sessionId: "s-1", heartbeatSeconds: 20 });
    expect(await session.next("advertise")).toMatchObject({ revision: 1, gpus: [], host: { architecture: "amd64" } });
    expect(side.link.status()).toMatchObject({
      state: "connected",
      sessionId: "s-1",
      url: `${coordinator.url}/v1/agent`,
    });
    expect(side.sessions).toEqual(["welcome"]);
    await side.stop();
    expect(await session.end()).toEqual({ code: 1001, reason: "the agent is leaving" });
    expect(side.sessions).toEqual(["welcome", "end"]);
  });

  it("says nothing before it is asked", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, events: nodeEvents(1) });
    const session = await coordinator.next();
    side.link.offerTelemetry({ at: new Date().toISOString(), gpus: [], host: {}, workloads: [] });
    side.link.advertiseChanged();
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(session.frames).toEqual([]);
  });

  it("sends the join token until this coordinator has welcomed the key once, and logs it never", async () => {
    const dir = scratch();
    const first = await fakeCoordinator();
    const { port } = first;
    const side = startAgent({ url: first.url, joinToken: "canary-join", dir });
    const unwelcome = await first.next();
    unwelcome.challenge();
    expect((await unwelcome.next("hello")).joinToken).toBe("canary-join");
    unwelcome.socket.terminate();
    const session = await first.next();
    expect((await session.start()).joinToken).toBe("canary-join");
    session.socket.close(1001);
    expect(await (await first.next()).start()).not.toHaveProperty("joinToken");
    expect(JSON.stringify([side.logged, side.link.status()])).not.toContain("canary");
    await side.stop();

    const again = startAgent({ url: first.url, joinToken: "canary-join", dir });
    expect(await (await first.next()).start()).not.toHaveProperty("joinToken");
    await again.stop();
    await first[Symbol.asyncDispose]();

    // Set up anew at the same address, it knows nobody: the token is of use again.
    const rebuilt = await fakeCoordinator({ port, coordinatorId: "another" });
    startAgent({ url: rebuilt.url, joinToken: "canary-join", dir });
    expect((await (await rebuilt.next()).start()).joinToken).toBe("canary-join");
  });

  it("accepts a refusal, shows it, and comes back when it was told to", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, random: () => 0 });
    const session = await coordinator.next();
    session.challenge();
    await session.next("hello");
    const at = Date.now();
    session.send({ type: "reject", code: "refused", message: "no such \u001b[31mtoken", retryAfterSeconds: 0.4 });
    await session.end();
    const status = await linkState(side, "refused");
    expect(status.lastError).toBe("the coordinator refuses this node: no such [31mtoken (refused)");
    expect(side.sessions).toEqual([]);
    await (await coordinator.next()).start();
    expect(Date.now() - at).toBeGreaterThanOrEqual(395);
    await linkState(side, "connected");
  });

  it("knows a refusal by the close code alone", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, backoff: { firstMs: 1000, mostMs: 1000, lastedMs: 10 } });
    const session = await coordinator.next();
    session.socket.close(4401, "who are you");
    expect((await linkState(side, "refused")).lastError).toMatch(/signature \(who are you\)/);
  });

  it("gives up on a coordinator that does not finish it", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, handshakeTimeoutMs: 150 });
    const mute = await coordinator.next();
    expect(await mute.end()).toMatchObject({ code: 4408 });
    const half = await coordinator.next();
    half.challenge();
    await half.next("hello");
    expect(await half.end()).toMatchObject({ code: 4408 });
    await eventually(() => side.link.status().lastError?.includes("within 0.15 s"), "the reason");
    await (await coordinator.next()).start();
    await linkState(side, "connected");
    await new Promise((resolve) => setTimeout(resolve, 250));
    expect(side.link.status().state).toBe("connected");
  });

  it("takes no welcome that would leave its events no numbers", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, events: nodeEvents(2) });
    const first = await coordinator.next();
    first.challenge();
    await first.next("hello");
    first.welcome({ acked: Number.MAX_SAFE_INTEGER - 1 });
    expect(await first.end()).toMatchObject({ code: 4400, reason: expect.stringContaining("acked") });
    expect([side.store.oldest, side.store.newest]).toEqual([1, 2]);
    const second = await coordinator.next();
    await second.start({ acked: 2 ** 52 });
    const [event] = await second.events(2 ** 52 + 2);
    expect(DurableEvent.safeParse(event).success).toBe(true);
  });

  const welcome = {
    type: "welcome",
    sessionId: "s",
    heartbeatSeconds: 15,
    leaseSeconds: 60,
    telemetryIntervalMs: 1000,
  };
  it.each([
    ["a command", '{"type":"drain","id":"1"}'],
    ["a welcome out of turn", JSON.stringify({ ...welcome, acked: 0 })],
    ["sync", '{"type":"sync","workloads":[]}'],
    ["no JSON", "{"],
    ["a challenge with half a nonce", '{"type":"challenge","nonce":"abc","coordinatorId":"c","time":"now"}'],
    ["a binary frame", Buffer.from("{}")],
  ])("ends with 4400 at %s", async (_what, frame) => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url });
    const session = await coordinator.next();
    session.socket.send(frame);
    expect(await session.end()).toMatchObject({ code: 4400 });
    expect(session.frames).toEqual([]);
    expect(side.commands).toEqual([]);
  });

  it.each([
    ["a second challenge", '{"type":"challenge"}'],
    ["a welcome without what it needs", JSON.stringify(welcome)],
    ["an assign", '{"type":"assign","id":"1","workload":{"id":"w","generation":1,"image":"i"}}'],
  ])("ends with 4400 at %s after hello", async (_what, frame) => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url });
    const session = await coordinator.next();
    session.challenge();
    await session.next("hello");
    session.send(frame);
    expect(await session.end()).toMatchObject({ code: 4400 });
    expect(side.sessions).toEqual([]);
  });
});
