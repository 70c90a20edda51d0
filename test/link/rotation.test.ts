import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { fakeCoordinator, linkState, nodeEvents, scratch, startAgent } from "./harness.ts";

describe("a new key", () => {
  it("is introduced by the old one, both bound to this host and challenge, and taken when the coordinator says so", async () => {
    const coordinator = await fakeCoordinator();
    const dir = scratch();
    const side = startAgent({ url: coordinator.url, dir, joinToken: "canary-join", events: nodeEvents(2) });
    const before = await coordinator.next();
    expect(await before.start()).not.toHaveProperty("rotation");
    await linkState(side, "connected");
    const old = side.identity.nodeId;

    const rotated = side.link.rotateKey();
    expect(await before.end()).toEqual({ code: 1001, reason: "the agent comes back with a new key" });
    const session = await coordinator.next();
    session.challenge();
    const hello = await session.next("hello");
    const nodeId = session.verifyRotation(hello);
    expect(hello.node.id).toBe(old);
    expect(hello).not.toHaveProperty("joinToken");
    // Until the coordinator has spoken the node is who it was.
    expect(side.identity.nodeId).toBe(old);
    session.welcome({ rotatedTo: nodeId, acked: 1 });
    expect(await rotated).toEqual({ isDone: true, nodeId, replaces: old });
    // The session goes on, and with it what was not told yet.
    await session.next("advertise");
    expect((await session.events(2)).map(({ seq }) => seq)).toEqual([2]);
    expect(side.identity.nodeId).toBe(nodeId);

    session.socket.close(1001);
    const after = await (await coordinator.next()).start();
    expect(after).toMatchObject({ node: { id: nodeId } });
    expect(after).not.toHaveProperty("rotation");
    expect(after).not.toHaveProperty("joinToken");
    expect(existsSync(join(dir, "identity.pem.next"))).toBe(false);
  });

  it("a coordinator that does not know how: the node keeps the key it has, says so, and all goes on", async () => {
    const coordinator = await fakeCoordinator();
    const dir = scratch();
    const side = startAgent({ url: coordinator.url, dir });
    await (await coordinator.next()).start();
    await linkState(side, "connected");
    const rotated = side.link.rotateKey();
    const session = await coordinator.next();
    expect(await session.start()).toHaveProperty("rotation");
    expect(await rotated).toEqual({ isDone: false, message: expect.stringContaining("does not know how") });
    expect(side.logged.join()).toContain("keeps the one it has");
    expect(side.identity).toMatchObject({ nodeId: side.nodeId, next: undefined });
    expect(existsSync(join(dir, "identity.pem.next"))).toBe(false);
    session.socket.close(1001);
    expect(await (await coordinator.next()).start()).not.toHaveProperty("rotation");
  });

  it.each([
    ["rejects what is new in it", { type: "reject", code: "refused", message: "no rotation here" }, /no rotation here/],
    ["closes at it", 4400, /could not use our frames/],
  ])("a coordinator that %s gets the old key alone next, and the node stays who it is", async (_what, answer, why) => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url });
    await (await coordinator.next()).start();
    await linkState(side, "connected");
    const rotated = side.link.rotateKey();
    const strict = await coordinator.next();
    strict.challenge();
    expect(await strict.next("hello")).toHaveProperty("rotation");
    if (typeof answer === "number") strict.socket.close(answer);
    else strict.send(answer);
    expect(await (await coordinator.next()).start()).not.toHaveProperty("rotation");
    expect(await rotated).toEqual({ isDone: false, message: expect.stringMatching(why) });
    expect(side.identity.nodeId).toBe(side.nodeId);
  });

  it("a welcome that got lost is asked for again, also past a refusal of the old key alone, and by the next process", async () => {
    const coordinator = await fakeCoordinator();
    const dir = scratch();
    const side = startAgent({ url: coordinator.url, dir });
    await (await coordinator.next()).start();
    await linkState(side, "connected");
    void side.link.rotateKey();
    const moved = await coordinator.next();
    moved.challenge();
    const nodeId = moved.verifyRotation(await moved.next("hello"));
    moved.socket.terminate();

    const again = await coordinator.next();
    again.challenge();
    expect(again.verifyRotation(await again.next("hello"))).toBe(nodeId);
    again.send({ type: "reject", code: "refused", message: "busy" });
    const bare = await coordinator.next();
    bare.challenge();
    expect(await bare.next("hello")).not.toHaveProperty("rotation");
    bare.send({ type: "reject", code: "refused", message: "this key was given up" });
    await bare.end();
    await side.stop();

    const next = startAgent({ url: coordinator.url, dir });
    expect(next.nodeId).toBe(side.nodeId);
    let session = await coordinator.next();
    session.challenge();
    let hello = await session.next("hello");
    if (hello.rotation === undefined) {
      session.socket.terminate();
      session = await coordinator.next();
      session.challenge();
      hello = await session.next("hello");
    }
    expect(session.verifyRotation(hello)).toBe(nodeId);
    session.welcome({ rotatedTo: nodeId });
    await session.next("advertise");
    expect(next.identity.nodeId).toBe(nodeId);
  });

  it("a coordinator that names another key than the one it was told is not followed", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url });
    await (await coordinator.next()).start({ rotatedTo: "a".repeat(26) });
    await linkState(side, "connected");
    expect(side.identity.nodeId).toBe(side.nodeId);
    const rotated = side.link.rotateKey();
    await (await coordinator.next()).start({ rotatedTo: "a".repeat(26) });
    expect(await rotated).toMatchObject({ isDone: false });
    expect(side.identity.nodeId).toBe(side.nodeId);
  });

  it("is brought without waiting, also where the coordinator has been away for long", async () => {
    const coordinator = await fakeCoordinator({ refuseHttp: { status: 503, headers: { "Retry-After": "3600" } } });
    const { port } = coordinator;
    const side = startAgent({ url: coordinator.url });
    await linkState(side, "waiting");
    await coordinator[Symbol.asyncDispose]();
    const back = await fakeCoordinator({ port });
    const rotated = side.link.rotateKey();
    const session = await back.next();
    session.challenge();
    const nodeId = session.verifyRotation(await session.next("hello"));
    session.welcome({ rotatedTo: nodeId });
    expect(await rotated).toMatchObject({ isDone: true, nodeId });
  });

  it("makes the join token worth saying again where this key is a stranger", async () => {
    const dir = scratch();
    const [home, other] = [
      await fakeCoordinator({ coordinatorId: "home" }),
      await fakeCoordinator({ coordinatorId: "other" }),
    ];
    const elsewhere = startAgent({ url: other.url, dir, joinToken: "canary-join" });
    expect(await (await other.next()).start()).toHaveProperty("joinToken");
    await linkState(elsewhere, "connected");
    await elsewhere.stop();
    const side = startAgent({ url: home.url, dir, joinToken: "canary-join" });
    await (await home.next()).start();
    await linkState(side, "connected");
    const rotated = side.link.rotateKey();
    const session = await home.next();
    session.challenge();
    session.welcome({ rotatedTo: session.verifyRotation(await session.next("hello")) });
    await rotated;
    await side.stop();
    startAgent({ url: other.url, dir, joinToken: "canary-join" });
    expect(await (await other.next()).start()).toHaveProperty("joinToken");
  });
});
