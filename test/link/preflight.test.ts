import { createServer, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Socket, type Server as TcpServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { WebSocketServer } from "ws";
import { type CoordinatorOptions, startCoordinator } from "../../src/coordinator/server.ts";
import { coordinatorAddress } from "../../src/link/dial.ts";
import { type Finding, type PreflightOptions, preflight } from "../../src/link/preflight.ts";
import { haveOpenssl, makeCertificate } from "../support/certificate.ts";
import { connectProxy } from "../support/connect-proxy.ts";
import { eventually, fakeCoordinator, scratch, startAgent } from "./harness.ts";

async function look(url: string, options: Partial<PreflightOptions> = {}): Promise<Finding[]> {
  const address = coordinatorAddress(url, { insecure: true });
  return await all(preflight({ timeoutMs: 5000, ...options, address }, new AbortController().signal));
}

async function all(findings: AsyncIterable<Finding>): Promise<Finding[]> {
  const found: Finding[] = [];
  for await (const finding of findings) found.push(finding);
  return found;
}

async function coordinator(options: Partial<CoordinatorOptions> = {}) {
  const listen = { host: "127.0.0.1", port: 0 };
  const started = await startCoordinator({
    listen,
    stateDir: scratch(),
    joinTokens: ["once"],
    joinTokenUses: 1,
    ...options,
  });
  onTestFinished(() => started.close());
  return started;
}

/** A server that is gone after the test, with all its connections. */
async function listening<S extends Server | TcpServer>(server: S): Promise<number> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    sockets.add(socket.on("error", () => undefined));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return (server.address() as AddressInfo).port;
}

const inShort = (findings: Finding[]) => findings.map(({ about, verdict }) => `${about} ${verdict}`);
const last = (findings: Finding[]) => findings.at(-1) as Finding;

describe("the way to a coordinator", () => {
  it("is told step by step, and uses up no token", async () => {
    const { url } = await coordinator();
    const findings = await look(url.replace("127.0.0.1", "localhost"));
    expect(inShort(findings)).toEqual(["name good", "connection good", "coordinator good"]);
    expect(findings.map(({ says }) => says)).toEqual([
      expect.stringMatching(/^localhost is .*127\.0\.0\.1/),
      expect.stringMatching(/^127\.0\.0\.1 answers on port \d+ \(\d+ ms\)$/),
      expect.stringMatching(/^it speaks gpunode\.v1, and calls itself \S+$/),
    ]);
    for (let again = 0; again < 5; again += 1) expect(last(await look(url)).verdict).toBe("good");
    // The one use of the token is still there for the node.
    const side = startAgent({ url, joinToken: "once" });
    await eventually(() => side.link.status().state === "connected", "the node let in");
    await side.stop();
  });

  it("says nothing of this machine and leaves no connection behind", async () => {
    const fake = await fakeCoordinator();
    const going = look(fake.url);
    const session = await fake.next();
    session.challenge();
    expect(last(await going).verdict).toBe("good");
    await session.end();
    expect(session.frames).toEqual([]);
  });

  it("ends with its signal", async () => {
    const port = await listening(createTcpServer());
    const stop = new AbortController();
    const address = coordinatorAddress(`ws://127.0.0.1:${port}`);
    const going = all(preflight({ address }, stop.signal));
    setTimeout(() => stop.abort(new Error("enough")), 50);
    await expect(going).rejects.toThrow("enough");
  });
});

describe("what is wrong on the way is named, with what to do", () => {
  it.each<[string, (url: string) => string, RegExp]>([
    ["a name nobody knows", () => "ws://no-such-host.invalid", /^name bad: the host name .*(?:not known|looked up)/],
    ["a port nobody listens on", () => "ws://127.0.0.1:1", /^connection bad: nobody listens there/],
    [
      "wss where there is none",
      (url) => url.replace("ws:", "wss:"),
      /^certificate bad: it does not speak TLS.*ws:\/\//,
    ],
  ])("%s", async (_what, of, expected) => {
    const { url } = await coordinator();
    const { about, verdict, says } = last(await look(of(url)));
    expect(`${about} ${verdict}: ${says}`).toMatch(expected);
  });

  it.each<[number, Record<string, string>, RegExp, RegExp]>([
    [200, { "content-type": "text/html" }, /web server answers.*no coordinator.*HTTP 200/, /host and port/],
    [404, {}, /web server answers.*HTTP 404 for \/v1\/agent/, /host and port/],
    [301, { location: "https://other.example/" }, /sends on.*to https:\/\/other\.example\//, /give the address/],
    [401, {}, /wants a login.*HTTP 401/, /let agents through/],
    [502, {}, /coordinator behind it does not.*HTTP 502/, /is it up/],
    [400, {}, /does not take what we send/, /wss:\/\//],
  ])("a server that answers HTTP %i", async (status, headers, says, remedy) => {
    const server = createServer((_request, response) => response.writeHead(status, headers).end("<html>"));
    const finding = last(await look(`ws://127.0.0.1:${await listening(server)}`));
    expect(finding).toMatchObject({ about: "coordinator", verdict: "bad" });
    expect(finding.says).toMatch(says);
    expect(finding.remedy).toMatch(remedy);
  });

  it("something that is no web server at all, or says nothing", async () => {
    const ssh = await listening(createTcpServer((socket) => void socket.write("SSH-2.0-OpenSSH_9.2\r\n")));
    expect(last(await look(`ws://127.0.0.1:${ssh}`)).says).toMatch(/no HTTP server/);
    const mute = await listening(createTcpServer());
    const finding = last(await look(`ws://127.0.0.1:${mute}`, { timeoutMs: 200 }));
    expect(finding).toMatchObject({ about: "coordinator", verdict: "bad", says: expect.stringContaining("0.2 s") });
  });

  it("a WebSocket server that is no coordinator, and a coordinator of another version", async () => {
    const server = createServer();
    const sockets = new WebSocketServer({ server });
    sockets.on("connection", (socket) => socket.send("welcome to \u001b[2J chat"));
    const port = await listening(server);
    const { says } = last(await look(`ws://127.0.0.1:${port}`));
    expect(says).toContain('it said "welcome to [2J chat"');
    const other = await fakeCoordinator({ subprotocol: "gpunode.v9" });
    expect(last(await look(other.url)).says).toMatch(/does not speak gpunode\.v1/);
    const closing = await fakeCoordinator();
    const going = look(closing.url);
    (await closing.next()).socket.close(4406, "this coordinator speaks gpunode.v9");
    expect(last(await going)).toMatchObject({ verdict: "bad", remedy: expect.stringContaining("upgrade the older") });
  });

  it("a clock that is wrong, as a doubt", async () => {
    const { url } = await coordinator();
    for (const [offMs, says] of [
      [-3_600_000, "60 min behind"],
      [45_000, "45 s ahead of"],
    ] as const) {
      const findings = await look(url, { now: () => Date.now() + offMs });
      expect(inShort(findings).at(-1)).toBe("clock doubtful");
      expect(last(findings).says).toContain(says);
    }
  });

  it("what is sent unencrypted to another machine, as a doubt", async () => {
    const { url } = await coordinator({ publicHosts: ["gpu.example"] });
    const proxy = await connectProxy({ leadTo: Number(new URL(url).port) });
    const findings = await look("ws://gpu.example", { proxy: `http://127.0.0.1:${proxy.port}` });
    expect(inShort(findings)).toEqual(["connection good", "certificate doubtful", "coordinator good"]);
    expect(findings[1]).toMatchObject({
      says: expect.stringContaining("can be read on the way"),
      remedy: expect.stringContaining("wss://"),
    });
    expect(proxy.asked).toEqual(["gpu.example:80", "gpu.example:80"]);
  });
});

describe.runIf(haveOpenssl)("over TLS", () => {
  it("a certificate of an authority that is known is good, and shown", async () => {
    const certificate = makeCertificate(scratch(), "localhost");
    const { url } = await coordinator({ tls: certificate });
    const findings = await look(url.replace("127.0.0.1", "localhost"), { caFile: certificate.certFile });
    expect(inShort(findings)).toEqual(["name good", "connection good", "certificate good", "coordinator good"]);
    expect(findings[2]?.says).toMatch(
      /^for localhost, self-signed, valid until \d{4}-\d\d-\d\d, SHA-256 (?:[0-9A-F]{2}:){31}[0-9A-F]{2}$/,
    );
  });

  it("a self-signed one is shown with its fingerprint and the way to trust it", async () => {
    const { url } = await coordinator({ tls: makeCertificate(scratch(), "127.0.0.1") });
    const finding = last(await look(url));
    expect(finding).toMatchObject({ about: "certificate", verdict: "bad" });
    expect(finding.says).toMatch(
      /not signed by an authority that this machine trusts: for 127\.0\.0\.1, self-signed.*SHA-256 (?:[0-9A-F]{2}:){31}/,
    );
    expect(finding.remedy).toMatch(/compare the fingerprint.*--ca-file FILE/);
    const other = makeCertificate(scratch(), "127.0.0.1").certFile;
    expect(last(await look(url, { caFile: other })).remedy).toContain("--ca-file system");
  });

  it.each<[string, string, readonly [string, string] | undefined, RegExp, RegExp]>([
    ["for another name", "other.example", undefined, /not for 127\.0\.0\.1: for other\.example/, /dial a name/],
    ["that has expired", "127.0.0.1", ["20200101", "20200102"], /has expired: .*valid until 2020-01-02/, /renew/],
    ["that is not valid yet", "127.0.0.1", ["20900101", "20900102"], /only from 2090-01-01/, /clock/],
  ])("one %s", async (_what, name, valid, says, remedy) => {
    const certificate = makeCertificate(scratch(), name, valid);
    const { url } = await coordinator({ tls: certificate });
    const finding = last(await look(url, { caFile: certificate.certFile }));
    expect(finding).toMatchObject({ about: "certificate", verdict: "bad" });
    expect(finding.says).toMatch(says);
    expect(finding.remedy).toMatch(remedy);
  });

  it("plain ws to a port that wants TLS, and a file that is not there", async () => {
    const { url } = await coordinator({ tls: makeCertificate(scratch(), "127.0.0.1") });
    const finding = last(await look(url.replace("wss:", "ws:")));
    expect(finding).toMatchObject({ about: "coordinator", verdict: "bad", remedy: expect.stringContaining("wss://") });
    const caFile = join(scratch(), "none.pem");
    expect(last(await look(url, { caFile })).says).toContain(`${caFile} cannot be read`);
  });

  it("a coordinator that wants a client certificate says so", async () => {
    const [server, client] = [makeCertificate(scratch(), "localhost"), makeCertificate(scratch(), "rig")];
    const fake = await fakeCoordinator({ tls: { ...server, ca: client.cert, requestCert: true } });
    const finding = last(await look(fake.url, { caFile: server.certFile }));
    expect(finding).toMatchObject({ verdict: "bad", says: expect.stringContaining("cert_file") });
  });

  it("through a proxy all the same", async () => {
    const certificate = makeCertificate(scratch(), "127.0.0.1");
    const { url } = await coordinator({ tls: certificate });
    const proxy = await connectProxy();
    const through = `http://ann:canary@127.0.0.1:${proxy.port}`;
    const findings = await look(url, { caFile: certificate.certFile, proxy: through });
    expect(inShort(findings)).toEqual(["connection good", "certificate good", "coordinator good"]);
    await eventually(() => proxy.open === 0, "the ways through the proxy closed");
    const refusing = await connectProxy({ refuse: true });
    const refused = last(await look(url, { proxy: `http://ann:canary@127.0.0.1:${refusing.port}` }));
    expect(refused.says).toMatch(/the proxy 127\.0\.0\.1:\d+ answered 407/);
    expect(JSON.stringify([findings, refused])).not.toContain("canary");
  });
});
