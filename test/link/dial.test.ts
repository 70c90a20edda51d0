import { writeFileSync } from "node:fs";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { coordinatorAddress } from "../../src/link/dial.ts";
import { Link } from "../../src/link/link.ts";
import { haveOpenssl, makeCertificate } from "../support/certificate.ts";
import { connectProxy } from "../support/connect-proxy.ts";
import { eventually, fakeCoordinator, linkState, scratch, startAgent } from "./harness.ts";

describe("the coordinator's address", () => {
  it.each([
    ["wss://gpu.example", "wss://gpu.example/v1/agent", "gpu.example"],
    ["wss://gpu.example:443/", "wss://gpu.example/v1/agent", "gpu.example"],
    ["wss://GPU.example:8443", "wss://gpu.example:8443/v1/agent", "gpu.example:8443"],
    ["wss://gpu.example/team/agents", "wss://gpu.example/team/agents", "gpu.example"],
    ["ws://localhost:7000", "ws://localhost:7000/v1/agent", "localhost:7000"],
    ["ws://127.0.0.1", "ws://127.0.0.1/v1/agent", "127.0.0.1"],
    ["ws://127.9.9.9:80", "ws://127.9.9.9/v1/agent", "127.9.9.9"],
    ["ws://[::1]:7000", "ws://[::1]:7000/v1/agent", "[::1]:7000"],
  ])("%s is dialled as %s", (text, url, host) => {
    const address = coordinatorAddress(text);
    expect([address.url.href, address.host]).toEqual([url, host]);
  });

  it.each([
    "ws://gpu.example",
    "ws://10.0.0.1",
    "ws://127.0.0.1.example",
    "ws://localhost.example",
    "ws://[::2]",
    "ws://0.0.0.0",
  ])("%s is refused: unencrypted to another machine", (text) => {
    expect(() => coordinatorAddress(text)).toThrow(/unencrypted.*wss:\/\/.*insecure/);
    expect(coordinatorAddress(text, { insecure: true }).url.protocol).toBe("ws:");
  });

  it.each([
    "",
    "gpu.example",
    "https://gpu.example",
    "ftp://x",
    "wss://",
    "wss://user:canary@gpu.example",
    "wss://h/#x",
  ])("%j is refused", (text) => {
    expect(() => coordinatorAddress(text)).toThrow(/coordinator\.url/);
    expect(() => coordinatorAddress(text)).not.toThrow(/canary/);
  });

  it("is checked before anything is dialled, and so is the proxy's", () => {
    const options = { url: "ws://10.0.0.1" };
    const doors = undefined as never;
    expect(() => new Link(options, doors)).toThrow(/unencrypted/);
    const withProxy = { url: "wss://gpu.example", proxy: "socks5://user:canary@proxy" };
    expect(() => new Link(withProxy, doors)).toThrow(/coordinator\.proxy.*http:\/\//);
    expect(() => new Link(withProxy, doors)).not.toThrow(/canary/);
  });
});

describe("a coordinator that cannot be reached", () => {
  it("is named with the reason, and reached when it is there", async () => {
    const gone = await fakeCoordinator();
    const { port } = gone;
    await gone[Symbol.asyncDispose]();
    const side = startAgent({ url: `ws://127.0.0.1:${port}` });
    const status = await linkState(side, "waiting");
    expect(status.lastError).toMatch(/connection refused/);
    expect(status.retryAt).toBeGreaterThan(status.since - 1);
    const back = await fakeCoordinator({ port });
    await (await back.next()).start();
    expect((await linkState(side, "connected")).lastError).toBeUndefined();
    // One line for the outage, however many attempts it took.
    expect(side.logged.filter((line) => line.includes("connection refused"))).toHaveLength(1);
  });

  it.each([
    ["another subprotocol", { subprotocol: "other.v1" }, /does not speak gpunode\.v1/],
    ["no subprotocol", { subprotocol: false as const }, /does not speak gpunode\.v1/],
    ["HTTP 404", { refuseHttp: { status: 404 } }, /HTTP 404.*path/],
  ])("because it answers with %s", async (_what, options, message) => {
    const coordinator = await fakeCoordinator(options);
    const side = startAgent({ url: coordinator.url });
    expect((await linkState(side, "waiting")).lastError).toMatch(message);
  });

  it("for so long as it asked for with Retry-After", async () => {
    const coordinator = await fakeCoordinator({ refuseHttp: { status: 503, headers: { "Retry-After": "40" } } });
    const side = startAgent({ url: coordinator.url, random: () => 0 });
    const { retryAt = 0, since } = await linkState(side, "waiting");
    expect(retryAt - since).toBeGreaterThan(39_900);
  });

  it("because it accepts and then says nothing", async () => {
    const sockets = new Set<Socket>();
    const mute = createTcpServer((socket) => sockets.add(socket));
    await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
    onTestFinished(async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => mute.close(resolve));
    });
    const { port } = mute.address() as AddressInfo;
    const side = startAgent({ url: `ws://127.0.0.1:${port}`, handshakeTimeoutMs: 100 });
    expect((await linkState(side, "waiting")).lastError).toMatch(/^no answer within 0.1 s: /);
    await side.stop();
    const left = () => new Promise<number>((resolve) => mute.getConnections((_error, count) => resolve(count)));
    for (const socket of sockets) socket.resume();
    await eventually(() => [...sockets].every((socket) => socket.readableEnded || socket.destroyed), "sockets closed");
    for (const socket of sockets) socket.destroy();
    expect(await left()).toBe(0);
  });

  it("does not keep a leaving agent", async () => {
    const mute = createTcpServer();
    await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
    const connected = new Promise<Socket>((resolve) => mute.once("connection", resolve));
    const side = startAgent({ url: `ws://127.0.0.1:${(mute.address() as AddressInfo).port}` });
    const socket = await connected;
    socket.on("error", () => undefined).resume();
    await side.stop();
    await new Promise((resolve) => socket.once("close", resolve));
    await new Promise((resolve) => mute.close(resolve));
  });
});

describe.runIf(haveOpenssl)("over TLS", () => {
  it("a coordinator of the CA that was given is trusted, another is not", async () => {
    const certificate = makeCertificate(scratch(), "localhost");
    const coordinator = await fakeCoordinator({ tls: certificate });
    const stranger = startAgent({ url: coordinator.url });
    expect((await linkState(stranger, "waiting")).lastError).toMatch(/coordinator\.ca_file/);
    const side = startAgent({ url: coordinator.url, caFile: certificate.certFile });
    const session = await coordinator.next();
    await session.start();
    await linkState(side, "connected");
    expect(session.request.headers.host).toBe(`localhost:${coordinator.port}`);
  });

  it("a certificate for another name is refused", async () => {
    const certificate = makeCertificate(scratch(), "other.example");
    const coordinator = await fakeCoordinator({ tls: certificate });
    const side = startAgent({ url: coordinator.url, caFile: certificate.certFile });
    expect((await linkState(side, "waiting")).lastError).toMatch(/another host name/);
  });

  it("a client certificate is shown where one is wanted", async () => {
    const server = makeCertificate(scratch(), "localhost");
    const client = makeCertificate(scratch(), "rig-01");
    const coordinator = await fakeCoordinator({ tls: { ...server, ca: client.cert, requestCert: true } });
    const without = startAgent({ url: coordinator.url, caFile: server.certFile });
    expect((await linkState(without, "waiting")).lastError).toBeTruthy();
    await without.stop();
    const { certFile, keyFile } = client;
    const side = startAgent({ url: coordinator.url, caFile: server.certFile, certFile, keyFile });
    await (await coordinator.next()).start();
    await linkState(side, "connected");
  });

  it("a file that cannot be read is named, and read again at the next attempt", async () => {
    const certificate = makeCertificate(scratch(), "localhost");
    const coordinator = await fakeCoordinator({ tls: certificate });
    const caFile = join(scratch(), "later.pem");
    const side = startAgent({ url: coordinator.url, caFile });
    expect((await linkState(side, "waiting")).lastError).toContain(caFile);
    writeFileSync(caFile, certificate.cert);
    await (await coordinator.next()).start();
    await linkState(side, "connected");
  });
});

describe("through a proxy", () => {
  it("by CONNECT, with the user it wants, and with no word of the password anywhere", async () => {
    const coordinator = await fakeCoordinator();
    const proxy = await connectProxy();
    const side = startAgent({
      url: coordinator.url,
      proxy: `http://rig:canary%2Fsecret@127.0.0.1:${proxy.port}`,
    });
    const session = await coordinator.next();
    await session.start();
    await linkState(side, "connected");
    expect(proxy.asked).toEqual([`localhost:${coordinator.port}`]);
    const basic = proxy.requests[0]?.headers["proxy-authorization"]?.replace("Basic ", "") ?? "";
    expect(Buffer.from(basic, "base64").toString()).toBe("rig:canary/secret");
    expect(JSON.stringify([side.logged, side.link.status()])).not.toContain("canary");
    await side.stop();
    expect(await session.end()).toMatchObject({ code: 1001 });
    await eventually(() => proxy.open === 0, "the way through the proxy closed");
  });

  it.runIf(haveOpenssl)("with TLS to the coordinator itself", async () => {
    const certificate = makeCertificate(scratch(), "localhost");
    const coordinator = await fakeCoordinator({ tls: certificate });
    const proxy = await connectProxy();
    const proxyAddress = `http://127.0.0.1:${proxy.port}`;
    const side = startAgent({ url: coordinator.url, proxy: proxyAddress, caFile: certificate.certFile });
    await (await coordinator.next()).start();
    await linkState(side, "connected");
    await side.stop();
    await eventually(() => proxy.open === 0, "the way through the proxy closed");
    const stranger = startAgent({ url: coordinator.url, proxy: proxyAddress });
    expect((await linkState(stranger, "waiting")).lastError).toMatch(/coordinator\.ca_file/);
    await stranger.stop();
    await eventually(() => proxy.open === 0, "the way of the one that was not trusted closed");
  });

  it("that refuses or is away is named as what it is", async () => {
    const proxy = await connectProxy({ refuse: true });
    const side = startAgent({ url: "wss://gpu.example", proxy: `http://rig:canary@127.0.0.1:${proxy.port}` });
    const { lastError } = await linkState(side, "waiting");
    expect(lastError).toBe(`the proxy 127.0.0.1:${proxy.port} answered 407 to CONNECT gpu.example:443`);
    const away = startAgent({ url: "wss://gpu.example", proxy: "http://127.0.0.1:1" });
    expect((await linkState(away, "waiting")).lastError).toMatch(/proxy 127\.0\.0\.1:1 cannot be used.*refused/);
  });
});
