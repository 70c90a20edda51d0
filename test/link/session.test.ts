import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { eventually, fakeCoordinator, linkState, nodeEvents, startAgent } from "./harness.ts";
import { TcpProxy } from "./tcp-proxy.ts";

describe("a session", () => {
  it("is kept by pings where nothing else is said", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url });
    const session = await coordinator.next();
    await session.start({ heartbeatSeconds: 1 });
    const { lastFrameAt: heardAt = 0 } = await linkState(side, "connected");
    await sleep(3200);
    expect(session.closed).toBeUndefined();
    expect(session.pings).toBeGreaterThanOrEqual(2);
    expect(side.link.status().lastFrameAt).toBeGreaterThan(heardAt + 1500);
    expect(side.sessions).toEqual(["welcome"]);
  });

  it("with a peer that has vanished without a word ends within two heartbeats, and a new one is made", async () => {
    const coordinator = await fakeCoordinator();
    const network = await TcpProxy.start(coordinator.port);
    onTestFinished(() => network[Symbol.asyncDispose]());
    const side = startAgent({ url: `ws://127.0.0.1:${network.port}` });
    const session = await coordinator.next();
    await session.start({ heartbeatSeconds: 1 });
    await eventually(() => side.syncs.length === 1, "sync");
    network.isSwallowing = true;
    const at = performance.now();
    side.store.append(nodeEvents(2));
    await eventually(() => side.sessions.includes("end"), "half-open noticed", 4000);
    const tookMs = performance.now() - at;
    expect(tookMs).toBeGreaterThan(1000);
    expect(tookMs).toBeLessThan(2300);
    await eventually(() => side.link.status().lastError?.includes("nothing was heard"), "the reason");
    network.isSwallowing = false;
    const again = await coordinator.next();
    await again.start();
    expect((await again.events(2)).map(({ seq }) => seq)).toEqual([1, 2]);
  });

  it("is not ended by a process that was itself held up while bytes came in", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url });
    const session = await coordinator.next();
    await session.start({ heartbeatSeconds: 1 });
    await eventually(() => side.syncs.length === 1, "sync");
    await sleep(500);
    await new Promise<void>((resolve) => {
      // At the end of the loop's turn: the next one begins with the timers that are due, and only then reads.
      setImmediate(() => {
        session.send({ type: "resume", id: "c" });
        const until = performance.now() + 2500;
        while (performance.now() < until);
        resolve();
      });
    });
    expect(await session.next("reply")).toMatchObject({ ref: "c" });
    await sleep(200);
    expect(side.sessions).toEqual(["welcome"]);
  });

  it("replaced by a newer one of the same node is told as that, and not fought over", async () => {
    const coordinator = await fakeCoordinator();
    const side = startAgent({
      url: coordinator.url,
      backoff: { firstMs: 10, mostMs: 600, lastedMs: 60_000 },
      random: () => 0,
    });
    const session = await coordinator.next();
    await session.start();
    const at = performance.now();
    session.socket.close(4409, "replaced");
    expect((await linkState(side, "waiting")).lastError).toMatch(/second gpunode.*\(replaced\)/);
    await (await coordinator.next()).start();
    expect(performance.now() - at).toBeGreaterThan(290);
    await linkState(side, "connected");
  });

  it("that lasted is followed by the next at once; those that don't, ever more slowly", async () => {
    const coordinator = await fakeCoordinator();
    const waits: number[] = [];
    const side = startAgent({
      url: coordinator.url,
      backoff: { firstMs: 20, mostMs: 10_000, lastedMs: 300 },
      random: () => 0.99,
    });
    const end = async (lastsMs: number) => {
      const session = await coordinator.next();
      await session.start();
      await sleep(lastsMs);
      session.socket.close(1001, "restarting");
      const { retryAt = 0, since, lastError } = await linkState(side, "waiting");
      expect(lastError).toMatch(/going away \(restarting\)/);
      waits.push(Math.round((retryAt - since) / 10) * 10);
    };
    for (const lastsMs of [10, 10, 10, 350, 10]) await end(lastsMs);
    expect(waits).toEqual([80, 160, 320, 40, 80]);
  });

  it("goes on when a listener of its end fails", async () => {
    const coordinator = await fakeCoordinator();
    startAgent({
      url: coordinator.url,
      doors: {
        onSessionEnd: () => {
          throw new Error("a bug");
        },
      },
    });
    const session = await coordinator.next();
    await session.start();
    session.socket.terminate();
    await (await coordinator.next()).start();
  });

  it("leaves no timer and no socket, however it ended", async () => {
    // What the tests before this one had is closed, but perhaps not yet let go.
    await sleep(50);
    const before = resources();
    const coordinator = await fakeCoordinator();
    const side = startAgent({ url: coordinator.url, events: nodeEvents(3) });
    const ends = [
      (session: Awaited<ReturnType<typeof coordinator.next>>) => session.socket.terminate(),
      (session: Awaited<ReturnType<typeof coordinator.next>>) => session.socket.close(1001),
      (session: Awaited<ReturnType<typeof coordinator.next>>) => session.send("x".repeat(9 * 1024 * 1024)),
    ];
    for (const end of ends) {
      const session = await coordinator.next();
      await session.start();
      await session.events(3);
      side.link.offerProgress({ workload: "w", phase: "pulling", currentBytes: 1, totalBytes: 2 });
      side.link.advertiseChanged();
      end(session);
    }
    const last = await coordinator.next();
    await last.start();
    last.socket.pause();
    const stopping = performance.now();
    await side.stop();
    // A coordinator that does not answer the close holds a leaving agent for a second at most.
    expect(performance.now() - stopping).toBeLessThan(1500);
    await coordinator[Symbol.asyncDispose]();
    await eventually(
      () => moreThan(before).length === 0,
      () => `still there: ${moreThan(before)}`,
    );
  });
});

/** What keeps this process alive. */
function resources(): string[] {
  return process.getActiveResourcesInfo().filter((name) => /TCP|TLS|Timeout|Immediate|FSReq/.test(name));
}

/** What there is now and was not `before`. */
function moreThan(before: readonly string[]): string[] {
  const known = [...before];
  return resources().filter((name) => {
    const at = known.indexOf(name);
    if (at >= 0) known.splice(at, 1);
    return at < 0;
  });
}
