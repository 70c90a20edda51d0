import { once } from "node:events";
import { request } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { text } from "node:stream/consumers";
import { describe, expect, it, onTestFinished } from "vitest";
import { type ListenerOptions, startListener } from "../../src/local/listener.ts";
import { GpunodeError } from "../../src/protocol/errors.ts";

/** A listener with a page of its own and one for others. */
async function listener(options: Partial<ListenerOptions> = {}) {
  const said: string[] = [];
  const say = (_fields: object, message: string) => void said.push(message);
  const started = await startListener({
    listen: { host: "127.0.0.1", port: 0 },
    routes: {
      "/": { answer: () => ({ type: "text/html", body: "<p>µ" }) },
      "/query": { answer: (query) => ({ type: "text/plain", body: query.get("of") ?? "" }) },
      "/metrics": { forOthers: true, answer: async () => ({ type: "text/plain", body: "up 1\n" }) },
      "/limited": { answer: () => Promise.reject(new GpunodeError("bad_message", "n=7: expected at most 5")) },
      "/broken": { answer: () => Promise.reject(new Error("the words of a bug")) },
    },
    log: { debug: say, info: say, warn: say, error: say },
    ...options,
  });
  onTestFinished(() => started[Symbol.asyncDispose]());
  return { started, said, port: Number(new URL(started.url ?? "http://x:1").port) };
}

function ask(port: number, path: string, { method = "GET", headers = {}, host = "127.0.0.1" } = {}) {
  return new Promise<{ status: number; headers: Record<string, unknown>; body: string }>((done, fail) => {
    request({ host, port, method, path, headers, agent: false }, async (response) => {
      done({ status: response.statusCode ?? 0, headers: response.headers, body: await text(response) });
    })
      .once("error", fail)
      .end();
  });
}

/** An address of this machine that is not loopback. */
const outward = Object.values(networkInterfaces())
  .flat()
  .find((each) => each?.family === "IPv4" && !each.internal)?.address;

describe("what is asked for", () => {
  it("comes with its type and length, and headers that keep everything else out", async () => {
    const { port } = await listener();
    const { status, headers, body } = await ask(port, "/");
    expect({ status, body, type: headers["content-type"], length: headers["content-length"] }).toEqual({
      status: 200,
      body: "<p>µ",
      type: "text/html",
      length: "5",
    });
    expect(headers["content-security-policy"]).toContain("default-src 'none'");
    expect(headers["content-security-policy"]).toContain("frame-ancestors 'none'");
    expect(headers["x-content-type-options"]).toBe("nosniff");
    expect((await ask(port, "/query?of=a%20b")).body).toBe("a b");
    expect(await ask(port, "/", { method: "HEAD" })).toMatchObject({ status: 200, body: "" });
  });

  it("is nothing but what there is", async () => {
    const { port } = await listener();
    for (const path of ["/nothing", "//", "/../etc/passwd", "/constructor", "/__proto__", "http://127.0.0.1/"])
      expect((await ask(port, path)).status, path).toBe(404);
    expect(await ask(port, "/nothing")).toMatchObject({ body: "there is nothing at /nothing\n" });
  });

  it("is never an order", async () => {
    const { port } = await listener();
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"])
      expect(await ask(port, "/", { method })).toMatchObject({ status: 405, headers: { allow: "GET, HEAD" } });
  });

  it("is refused in words where the question is wrong", async () => {
    const { port, said } = await listener();
    expect(await ask(port, "/limited?n=7")).toMatchObject({ status: 400, body: "n=7: expected at most 5\n" });
    expect(said.some((line) => line.includes("failed"))).toBe(false);
  });

  it("fails without the words of a bug", async () => {
    const { port, said } = await listener();
    const { status, body } = await ask(port, "/broken");
    expect(status).toBe(500);
    expect(body).not.toContain("bug");
    expect(said.at(-1)).toContain("failed");
    expect((await ask(port, "/")).status).toBe(200);
  });
});

describe("requests that come from elsewhere", () => {
  it("are refused by name, origin and site", async () => {
    const { port } = await listener();
    const refused = async (headers: Record<string, string>) => {
      const { status, body } = await ask(port, "/", { headers });
      expect(status, JSON.stringify(headers)).toBe(403);
      return body;
    };
    expect(await refused({ host: "rebound.example:80" })).toBe(
      'the Host header is "rebound.example:80": only localhost is answered\n',
    );
    await refused({ host: "127.0.0.1.evil.example" });
    await refused({ host: "localhost:1@evil.example" });
    expect(await refused({ origin: "http://evil.example" })).toContain("of http://evil.example");
    await refused({ origin: "null" });
    await refused({ origin: `http://localhost:${port + 1}`, host: `localhost:${port}` });
    await refused({ "sec-fetch-site": "cross-site" });
    await refused({ "sec-fetch-site": "same-site" });
  });

  it("are answered where they come from the page itself, or from a tunnel to it", async () => {
    const { port } = await listener();
    for (const headers of [
      { host: `localhost:${port}`, origin: `http://localhost:${port}`, "sec-fetch-site": "same-origin" },
      { host: "localhost:9999", "sec-fetch-site": "none" },
      { host: `[::1]:${port}` },
    ])
      expect((await ask(port, "/", { headers })).status).toBe(200);
  });

  it.runIf(outward !== undefined)("of another machine get /metrics and nothing else", async () => {
    const { port, started } = await listener({ listen: { host: "0.0.0.0", port: 0 } });
    expect(started.url).toBe(`http://127.0.0.1:${port}/`);
    const host = outward ?? "";
    expect(await ask(port, "/metrics", { host, headers: { host: "rig-01.lan:9835" } })).toMatchObject({
      status: 200,
      body: "up 1\n",
    });
    expect(await ask(port, "/", { host })).toMatchObject({ status: 403, body: expect.stringContaining("ssh -L") });
    expect((await ask(port, "/metrics", { host, headers: { "sec-fetch-site": "cross-site" } })).status).toBe(403);
    expect((await ask(port, "/")).status).toBe(200);
  });
});

describe("an address that cannot be had", () => {
  it("is a problem with a way out, and is taken as soon as it is free", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as AddressInfo;
    const { started, said } = await listener({ listen: { host: "127.0.0.1", port }, retryMs: 20 });
    expect(started.url).toBeUndefined();
    expect(started.problems()).toEqual([
      {
        code: "page_unavailable",
        message: `the local page and /metrics cannot be served on 127.0.0.1:${port}: another program listens there. Set metrics.listen to a free address, or to "off"`,
      },
    ]);
    await new Promise((done) => other.close(done));
    await expect.poll(() => started.url).toBe(`http://127.0.0.1:${port}/`);
    expect(started.problems()).toEqual([]);
    expect(said.filter((line) => line.includes("cannot be served"))).toHaveLength(1);
    expect((await ask(port, "/")).status).toBe(200);
  });

  it("is told by what is wrong with it", async () => {
    const { started } = await listener({ listen: { host: "192.0.2.1", port: 9835 } });
    expect(started.problems()[0]?.message).toContain("192.0.2.1:9835: this machine has no such address");
  });
});

it("leaves no connection behind, and turns away more than it can hold", async () => {
  const { started, port } = await listener();
  const sockets: Socket[] = [];
  for (let i = 0; i < 70; i++) sockets.push(connect(port, "127.0.0.1").on("error", () => undefined));
  await expect.poll(() => sockets.filter((socket) => socket.closed).length).toBeGreaterThanOrEqual(6);
  await started[Symbol.asyncDispose]();
  await expect.poll(() => sockets.every((socket) => socket.closed)).toBe(true);
  await expect(ask(port, "/")).rejects.toThrow("ECONNREFUSED");
});
