import { connect, type Socket } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import type { Log } from "../../src/coordinator/log.ts";
import { Strangers } from "../../src/coordinator/strangers.ts";
import { agent, api, coordinator, eventually, newKey, scratch } from "./agent-side.ts";

function notedLog(): Log & { lines: string[] } {
  const lines: string[] = [];
  const note = (level: string) => (fields: object, message: string) => {
    lines.push(JSON.stringify({ level, ...fields, message }));
  };
  return { lines, debug: note("debug"), info: note("info"), warn: note("warn"), error: note("error") };
}

/** Says `text` to a port, and waits for the other side to close. */
async function untilClosed(
  port: number,
  text: string,
  timeoutMs: number,
): Promise<{ answer: string; afterMs: number }> {
  const beganMs = performance.now();
  const socket: Socket = connect(port, "127.0.0.1");
  onTestFinished(() => void socket.destroy());
  let answer = "";
  socket.on("data", (chunk) => {
    answer += chunk;
  });
  socket.on("error", () => undefined);
  socket.write(text);
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("it is still open")), timeoutMs);
    socket.once("close", () => {
      clearTimeout(timer);
      resolve();
    });
  });
  return { answer, afterMs: performance.now() - beganMs };
}

/** The challenge, where there is room for one more. */
async function greeted(url: string) {
  const side = agent(url);
  return await side.next("challenge", 500).catch(() => undefined);
}

const upgrade = (host: string) =>
  `GET /v1/agent HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: gpunode.v1\r\n\r\n`;

describe("guessing join tokens", () => {
  it("is over after some twenty, and a right one has to wait as well; who is known does not", async () => {
    const log = notedLog();
    const house = await coordinator({ joinTokens: ["canary-right"], log });
    const host = new URL(house.url).host;
    const known = newKey();
    await agent(house.url, { key: known }).join({ joinToken: "canary-right" });
    const attempt = async (joinToken: string) => {
      const side = agent(house.url);
      side.send(side.hello(await side.next("challenge"), host, { joinToken }));
      const reject = await side.next("reject");
      expect((await side.end()).code).toBe(4403);
      return reject;
    };
    let guesses = 0;
    // On a slow machine some come back while others are spent.
    while ((await attempt(`canary-guess-${guesses}`)).message.includes("not valid here")) guesses += 1;
    expect(guesses).toBeGreaterThanOrEqual(20);
    // Whether a token is right is not told either.
    expect(await attempt("canary-right")).toMatchObject({
      code: "refused",
      message: expect.stringContaining("wait"),
      retryAfterSeconds: expect.any(Number),
    });
    await agent(house.url, { key: known }).join({ joinToken: "canary-right" });
    expect(log.lines.filter((line) => line.includes('"address":"127.0.0.1"'))).not.toEqual([]);
    expect(log.lines.join()).not.toContain("canary");
  });

  it("is counted by address, a network of IPv6 as one, and forgiven with time", () => {
    let nowMs = 0;
    const strangers = new Strangers(() => nowMs);
    const enter = (address: string) => strangers.enter(address) ?? expect.unreachable();
    for (let guess = 0; guess < 20; guess += 1) enter(`2001:db8:1:2::${guess}`).guessedWrong();
    expect(enter("2001:db8:1:2:ffff::9").waitSeconds()).toBe(6);
    expect(enter("2001:db8:1:3::9").waitSeconds()).toBeUndefined();
    expect(enter("192.0.2.1").waitSeconds()).toBeUndefined();
    for (let guess = 0; guess < 20; guess += 1) enter("::ffff:192.0.2.1").guessedWrong();
    expect(enter("192.0.2.1").waitSeconds()).toBe(6);
    nowMs += 3000;
    expect(enter("192.0.2.1").waitSeconds()).toBe(3);
    nowMs += 3000;
    expect(enter("192.0.2.1").waitSeconds()).toBeUndefined();
  });
});

describe("those who have not proved who they are", () => {
  it("are let in so many at a time, of an address and of all, and have to leave for others to come", () => {
    const strangers = new Strangers(() => 0);
    const inside = Array.from({ length: 256 }, () => strangers.enter("192.0.2.1"));
    expect(inside.every((one) => one !== undefined)).toBe(true);
    expect(strangers.enter("192.0.2.1")).toBeUndefined();
    const others = Array.from({ length: 1024 - 256 }, (_, index) => strangers.enter(`198.51.100.${index % 200}`));
    expect(others.every((one) => one !== undefined)).toBe(true);
    expect(strangers.enter("203.0.113.1")).toBeUndefined();
    inside[0]?.leave();
    inside[0]?.leave();
    expect(strangers.enter("203.0.113.1")).toBeDefined();
    expect(strangers.enter("203.0.113.1")).toBeUndefined();
  });

  it("of one address that say nothing leave no room for more, and a node finds it again when one has left", async () => {
    const house = await coordinator({ handshakeTimeoutMs: 60_000 });
    const mute = Array.from({ length: 256 }, () => agent(house.url));
    await Promise.all(mute.map((side) => side.next("challenge", 20_000)));
    const { port, host } = new URL(house.url);
    const { answer } = await untilClosed(Number(port), upgrade(host), 5000);
    expect(answer).toMatch(/^HTTP\/1\.1 503 Service Unavailable\r\nRetry-After: 5\r\n/);
    await mute[0]?.leave();
    await expect.poll(async () => (await greeted(house.url)) !== undefined, { timeout: 10_000 }).toBe(true);
  }, 60_000);

  it("are cut off where they send more than any hello has", async () => {
    const house = await coordinator();
    const side = agent(house.url);
    await side.next("challenge");
    // One frame, far below what a node may send once it is known; it is not waited for.
    side.send("x".repeat(4 * 1024 * 1024));
    expect((await side.end()).code).toBe(1006);
    await agent(house.url).join();
  });

  it.each([
    ["says nothing", () => ""],
    ["does not finish its request", (host: string) => upgrade(host).slice(0, -2)],
  ])(
    "who %s is not waited for longer than a handshake takes",
    async (_what, text) => {
      const house = await coordinator();
      const { port, host } = new URL(house.url);
      const { answer } = await untilClosed(Number(port), text(host), 20_000);
      expect(answer).toMatch(/^(HTTP\/1\.1 408 |$)/);
    },
    30_000,
  );
});

describe("a join token made for the occasion", () => {
  it("admits one key, once, and the same key again; only its hash is on the disk", async () => {
    const stateDir = scratch();
    const house = await coordinator({ stateDir, joinTokens: ["lasting"] });
    const host = new URL(house.url).host;
    const { status, body } = await api(house, "POST", "/tokens", {});
    expect([status, body]).toEqual([
      201,
      { token: expect.stringMatching(/^[\w-]{32}$/), uses: 1, expiresAt: expect.any(String) },
    ]);
    expect(Date.parse(body.expiresAt) - Date.now()).toBeGreaterThan(3_590_000);
    const key = newKey();
    await agent(house.url, { key }).join({ joinToken: body.token });
    await agent(house.url, { key }).join({ joinToken: body.token });
    const second = agent(house.url);
    second.send(second.hello(await second.next("challenge"), host, { joinToken: body.token }));
    expect((await second.end()).code).toBe(4403);
    await house.close();

    // It is not one of those that a start may take away, and not counted anew.
    const again = await coordinator({ stateDir, joinTokens: ["lasting"] });
    const third = agent(again.url);
    third.send(third.hello(await third.next("challenge"), new URL(again.url).host, { joinToken: body.token }));
    expect((await third.end()).code).toBe(4403);
    await agent(again.url, { key }).join();
    const { execFileSync } = await import("node:child_process");
    const disk = execFileSync("sh", ["-c", 'cat "$0"/*', stateDir], { maxBuffer: 64 * 1024 * 1024 }).toString("latin1");
    expect(disk).not.toContain(body.token);
  });

  it("admits as many as were asked for, at the same moment too, and nobody when its time is over", async () => {
    let nowMs = Date.parse("2026-01-31T12:00:00.000Z");
    const house = await coordinator({ joinTokens: ["lasting"], now: () => nowMs });
    const host = new URL(house.url).host;
    const { token } = (await api(house, "POST", "/tokens", { uses: 3, expiresInSeconds: 60 })).body;
    const join = async () => {
      const side = agent(house.url);
      side.send(side.hello(await side.next("challenge"), host, { joinToken: token }));
      const found = () => side.frames.find(({ type }) => type === "welcome" || type === "reject");
      return (await side.until(found, "answer")).type;
    };
    const answers = await Promise.all(Array.from({ length: 6 }, join));
    expect(answers.sort()).toEqual(["reject", "reject", "reject", "welcome", "welcome", "welcome"]);
    const { token: late } = (await api(house, "POST", "/tokens", { expiresInSeconds: 60 })).body;
    nowMs += 60_000;
    const side = agent(house.url);
    side.send(side.hello(await side.next("challenge"), host, { joinToken: late }));
    expect((await side.end()).code).toBe(4403);
  });

  it.each([{ uses: 0 }, { uses: 1.5 }, { expiresInSeconds: 0 }, { token: "mine" }])(
    "is not made of %j",
    async (body) => {
      const house = await coordinator();
      expect((await api(house, "POST", "/tokens", body)).status).toBe(400);
    },
  );
});

describe("a second agent with the same key", () => {
  it("throws the first out, and the operator is told: in the log and in the list of nodes", async () => {
    const log = notedLog();
    const house = await coordinator({ log });
    const key = newKey();
    const first = agent(house.url, { key });
    await first.start();
    const second = agent(house.url, { key });
    await second.start();
    expect((await first.end()).code).toBe(4409);
    const list = await eventually(
      async () => (await api(house, "GET", "/nodes")).body.nodes,
      (nodes) => nodes[0]?.problems !== undefined,
    );
    expect(list).toMatchObject([
      {
        id: key.id,
        connected: true,
        problems: [{ code: "key_used_twice", message: expect.stringContaining("--rotate") }],
      },
    ]);
    expect(log.lines.filter((line) => line.includes("two agents use this node's key"))).toHaveLength(1);
  });

  it("is not what an agent is whose network came and went", async () => {
    const log = notedLog();
    const house = await coordinator({ log });
    const key = newKey();
    const gone = agent(house.url, { key });
    await gone.start();
    // Nothing comes back from where it was.
    gone.socket.pause();
    const back = agent(house.url, { key });
    await back.start();
    gone.socket.terminate();
    await gone.end();
    await back.leave();
    await eventually(
      async () => log.lines.filter((line) => line.includes("node disconnected")).length,
      (count) => count === 2,
    );
    expect(log.lines.join()).not.toContain("two agents");
    expect((await api(house, "GET", "/nodes")).body.nodes[0].problems).toBeUndefined();
  });
});
