import { request } from "node:http";
import { describe, expect, it } from "vitest";
import {
  type AgentSide,
  advertise,
  agent,
  api,
  coordinator,
  type Frame,
  newKey,
  nodeIdOf,
  scratch,
} from "./agent-side.ts";

describe("handshake", () => {
  it("derives the node id as the contract's check vector says", () => {
    expect(nodeIdOf(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe("mmg42klgyqzwneiskrelxms3j7");
  });

  it("greets, verifies, welcomes, and sends the desired set after the advertisement", async () => {
    const house = await coordinator({ heartbeatSeconds: 7, leaseSeconds: 33, telemetryIntervalMs: 500 });
    const side = agent(house.url);
    const challenge = await side.next("challenge");
    expect(Buffer.from(challenge.nonce, "base64url")).toHaveLength(32);
    expect(Math.abs(Date.parse(challenge.time) - Date.now())).toBeLessThan(60_000);
    side.send(side.hello(challenge, new URL(house.url).host));
    const welcome = await side.next("welcome");
    expect(welcome).toMatchObject({ heartbeatSeconds: 7, leaseSeconds: 33, telemetryIntervalMs: 500, acked: 0 });
    expect(side.frames).toEqual([]);
    side.send(advertise());
    expect((await side.next("sync")).workloads).toEqual([]);
    expect(side.socket.protocol).toBe("gpunode.v1");
    expect(side.socket.extensions).toBe("");
  });

  const forgeries: [string, (made: { side: AgentSide; host: string; challenge: Frame; hello: Frame }) => Frame][] = [
    ["another host", ({ side, host, challenge }) => side.hello(challenge, `evil.${host}`)],
    ["another nonce", ({ side, host }) => side.hello({ type: "challenge", nonce: "A".repeat(43) }, host)],
    ["nobody", ({ hello }) => ({ ...hello, signature: "" })],
    ["another key's id", ({ hello }) => ({ ...hello, node: { ...hello.node, id: newKey().id } })],
    ["a key that is none", ({ hello }) => ({ ...hello, node: { ...hello.node, publicKey: "AAAA" } })],
  ];
  it.each(forgeries)("refuses a hello signed for %s with 4401", async (_name, forge) => {
    const house = await coordinator();
    const side = agent(house.url);
    const challenge = await side.next("challenge");
    const host = new URL(house.url).host;
    side.send(forge({ side, host, challenge, hello: side.hello(challenge, host) }));
    expect(await side.next("reject")).toMatchObject({ code: "not_authenticated" });
    expect((await side.end()).code).toBe(4401);
    expect((await api(house, "GET", "/nodes")).body.nodes).toEqual([]);
  });

  it("refuses what was signed for another coordinator and passed on with its Host header", async () => {
    const house = await coordinator();
    const side = agent(house.url, { headers: { host: "false.example" } });
    side.send(side.hello(await side.next("challenge"), "false.example"));
    expect((await side.next("reject")).message).toMatch(/false\.example.*127\.0\.0\.1/);
    expect((await side.end()).code).toBe(4401);
  });

  it("accepts the name it was told it has", async () => {
    const house = await coordinator({ publicHosts: ["gpu.example"] });
    const side = agent(house.url, { headers: { host: "gpu.example" } });
    side.send(side.hello(await side.next("challenge"), "gpu.example"));
    await side.next("welcome");
  });

  it("closes with 4408 when no hello comes", async () => {
    const house = await coordinator({ handshakeTimeoutMs: 100 });
    expect((await agent(house.url).end()).code).toBe(4408);
  });

  it.each([
    ["not JSON", "{"],
    ["no hello", JSON.stringify({ type: "advertise" })],
    ["half a hello", JSON.stringify({ type: "hello" })],
    ["a frame over 1 MiB", JSON.stringify({ type: "hello", fill: "x".repeat(1024 * 1024) })],
  ])("closes with 4400 where the first frame is %s", async (_name, text) => {
    const house = await coordinator();
    const side = agent(house.url);
    await side.next("challenge");
    side.send(text);
    expect(await side.next("reject")).toMatchObject({ code: "bad_message" });
    expect((await side.end()).code).toBe(4400);
  });

  it.each([[["gpunode.v2"]], [[]]])("closes with 4406 where the client offers %j", async (protocols) => {
    const house = await coordinator();
    const side = agent(house.url, { protocols });
    expect((await side.end()).code).toBe(4406);
    expect(side.frames).toEqual([]);
  });

  it("does not serve browser pages or other paths", async () => {
    const house = await coordinator();
    const status = (path: string, headers: Record<string, string>) =>
      new Promise((resolve, reject) => {
        request(house.apiUrl + path, {
          headers: {
            connection: "Upgrade",
            upgrade: "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
            ...headers,
          },
        })
          .on("response", (response) => {
            response.resume();
            resolve(response.statusCode);
          })
          .on("error", reject)
          .end();
      });
    expect(await status("/v1/agent", { origin: "http://evil.example" })).toBe(403);
    expect(await status("/v1/other", {})).toBe(404);
  });
});

describe("join tokens", () => {
  it("are needed by a new key, and no more once it was welcomed", async () => {
    const house = await coordinator({ joinTokens: ["t-1"] });
    const key = newKey();
    const without = agent(house.url, { key });
    without.send(without.hello(await without.next("challenge"), new URL(house.url).host));
    expect(await without.next("reject")).toMatchObject({
      code: "refused",
      message: expect.stringContaining("join token"),
    });
    expect((await without.end()).code).toBe(4403);

    const wrong = agent(house.url, { key });
    wrong.send(wrong.hello(await wrong.next("challenge"), new URL(house.url).host, { joinToken: "t-2" }));
    expect((await wrong.end()).code).toBe(4403);

    await agent(house.url, { key }).join({ joinToken: "t-1" });
    await agent(house.url, { key }).join();
    await agent(house.url).join({ joinToken: "t-1" });
  });

  it("admit as many keys as configured, across restarts", async () => {
    const stateDir = scratch();
    const house = await coordinator({ stateDir, joinTokens: ["t-1"], joinTokenUses: 1 });
    const key = newKey();
    await agent(house.url, { key }).join({ joinToken: "t-1" });
    await agent(house.url, { key }).join({ joinToken: "t-1" });
    const other = agent(house.url);
    other.send(other.hello(await other.next("challenge"), new URL(house.url).host, { joinToken: "t-1" }));
    expect((await other.end()).code).toBe(4403);

    await house.close();
    const again = await coordinator({ stateDir, joinTokens: ["t-1"], joinTokenUses: 1 });
    const third = agent(again.url);
    third.send(third.hello(await third.next("challenge"), new URL(again.url).host, { joinToken: "t-1" }));
    expect((await third.end()).code).toBe(4403);
    await agent(again.url, { key }).join();
  });

  it("one is made at the first start, told once and kept", async () => {
    const stateDir = scratch();
    const first = await coordinator({ stateDir, open: false });
    expect(first.joinToken).toMatch(/^[\w-]{32}$/);
    const joinToken = first.joinToken ?? "";
    await first.close();
    const second = await coordinator({ stateDir, open: false });
    expect(second.joinToken).toBeUndefined();
    await agent(second.url).join({ joinToken });
  });
});
