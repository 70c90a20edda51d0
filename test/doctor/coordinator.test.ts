import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer, type RequestListener } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import { type AddressInfo, connect, createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { coordinator } from "../coordinator/agent-side.ts";
import { lookOver, stage } from "./staged.ts";

/** What is said of the way to a coordinator. */
async function wayTo(url: string, more: Record<string, string> = {}) {
  const keys = Object.entries({ url, ...more }).map(([key, value]) => `${key} = "${value}"`);
  const { of } = await lookOver(stage({ files: {}, config: `[coordinator]\n${keys.join("\n")}\n` }));
  const names = ["name", "connection", "certificate", "protocol"];
  return { ...Object.fromEntries(names.map((name) => [name, of(`coordinator-${name}`)])), clock: of("clock") };
}

/** A server that is gone after the test; its port. */
async function serve(listener: RequestListener, tls?: { cert: Buffer; key: Buffer }): Promise<number> {
  const server = tls === undefined ? createHttpServer(listener) : createHttpsServer(tls, listener);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return (server.address() as AddressInfo).port;
}

describe("the way to a coordinator", () => {
  it("is open", async () => {
    const house = await coordinator();
    expect(await wayTo(house.url)).toEqual({
      name: "ok: 127.0.0.1",
      connection: expect.stringMatching(/^ok: within \d+ ms$/) as string,
      certificate: "skipped: the coordinator is on this machine, and not encrypted",
      protocol: "ok: it does",
      clock: "ok: within 5 s of the coordinator's",
    });
  });

  it("ends at a name that nobody knows", async () => {
    expect(await wayTo("wss://no-such-host.invalid")).toMatchObject({
      name: expect.stringMatching(/^failure: no-such-host\.invalid: the host name/) as string,
      connection: "skipped: its name is not known",
      certificate: "skipped: it is not reached",
      protocol: "skipped: its name is not known",
    });
  });

  it("ends at a port where nobody listens", async () => {
    const server = createTcpServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    expect(await wayTo(`ws://127.0.0.1:${port}`)).toMatchObject({
      connection:
        "failure: 127.0.0.1: nobody listens there (connection refused): is the coordinator up, and the port right?",
      protocol: "skipped: it is not reached",
    });
  });

  it("ends at something that is no coordinator", async () => {
    const port = await serve((_, response) => void response.writeHead(404).end("no"));
    expect(await wayTo(`ws://127.0.0.1:${port}`)).toMatchObject({
      connection: expect.stringMatching(/^ok/) as string,
      protocol: "failure: it answered HTTP 404 instead of a WebSocket: is the path right?",
    });
  });

  it("ends at somebody who accepts and says nothing, within its time", { timeout: 30_000 }, async () => {
    const server = createTcpServer((socket) => socket.on("error", () => undefined).resume()).listen(0, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const way = await wayTo(`wss://127.0.0.1:${port}`);
    expect(way).toMatchObject({ certificate: "failure: no answer within 3 s" });
  });

  it("shows a clock that is off", async () => {
    const port = await serve((_, response) => {
      response.writeHead(404, { date: new Date(Date.now() + 3_600_000).toUTCString() }).end();
    });
    expect((await wayTo(`ws://127.0.0.1:${port}`)).clock).toBe(
      "failure: this clock is 60 min behind the coordinator's",
    );
  });

  it("leads through a proxy, whose password nobody sees", async () => {
    const house = await coordinator();
    const proxy = createHttpServer().listen(0, "127.0.0.1");
    const asked: string[] = [];
    proxy.on("connect", (request, socket) => {
      asked.push(request.url ?? "");
      const [host = "", port] = (request.url ?? "").split(":");
      const far = connect({ host, port: Number(port) }, () => {
        socket.write("HTTP/1.1 200 OK\r\n\r\n");
        far.pipe(socket).pipe(far);
      });
      far.on("error", () => socket.destroy());
      socket.on("error", () => far.destroy());
    });
    await once(proxy, "listening");
    onTestFinished(() => void proxy.close());
    const { port } = proxy.address() as AddressInfo;
    const way = await wayTo(house.url, { proxy: `http://me:canary@127.0.0.1:${port}` });
    expect(way).toMatchObject({
      name: `skipped: the proxy 127.0.0.1:${port} looks it up`,
      connection: expect.stringMatching(/through the proxy/) as string,
      protocol: "ok: it does",
    });
    expect(asked.length).toBeGreaterThan(0);
    expect(JSON.stringify(way)).not.toContain("canary");
  });
});

describe.runIf(spawnSync("openssl", ["version"]).status === 0)("the coordinator's certificate", () => {
  /** A key and a certificate of its own for 127.0.0.1. `dates` as openssl ca takes them. */
  function certificate(dates?: { from: string; to: string }) {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-cert-"));
    onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
    const openssl = (...args: string[]) => execFileSync("openssl", args, { cwd: dir, stdio: "ignore" });
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem"];
    const subject = ["-subj", "/CN=coordinator.test", "-addext", "subjectAltName=IP:127.0.0.1"];
    if (dates === undefined) openssl("req", "-x509", "-days", "30", ...key, "-out", "cert.pem", ...subject);
    else {
      openssl("req", "-new", ...key, "-out", "csr.pem", ...subject);
      writeFileSync(join(dir, "index.txt"), "");
      writeFileSync(
        join(dir, "ca.cnf"),
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\npolicy=p\ncopy_extensions=copy\n[p]\ncommonName=supplied\n",
      );
      openssl(
        "ca",
        "-batch",
        "-notext",
        "-selfsign",
        "-config",
        "ca.cnf",
        "-in",
        "csr.pem",
        "-keyfile",
        "key.pem",
        "-out",
        "cert.pem",
        "-startdate",
        dates.from,
        "-enddate",
        dates.to,
      );
    }
    const caFile = join(dir, "cert.pem");
    return { caFile, cert: readFileSync(caFile), key: readFileSync(join(dir, "key.pem")) };
  }

  it("is good, and when it ends is told", async () => {
    const { caFile, cert, key } = certificate();
    const house = await coordinator({ tls: { cert, key } });
    expect(await wayTo(house.url, { ca_file: caFile })).toMatchObject({
      certificate: expect.stringMatching(
        /^ok: 1 in the chain; that of coordinator\.test ends in (29|30) days$/,
      ) as string,
      protocol: "ok: it does",
      clock: "ok: within 5 s of the coordinator's",
    });
  });

  it("is good, also where the coordinator answers no question of another kind", { timeout: 30_000 }, async () => {
    const { caFile, cert, key } = certificate();
    const port = await serve(() => undefined, { cert, key });
    const way = await wayTo(`wss://127.0.0.1:${port}`, { ca_file: caFile });
    expect(way).toMatchObject({
      certificate: expect.stringMatching(/^ok/) as string,
      protocol: expect.stringMatching(/^failure: no answer within 3 s/) as string,
    });
  });

  it("is by an authority that nobody here knows", async () => {
    const { cert, key } = certificate();
    const house = await coordinator({ tls: { cert, key } });
    expect(await wayTo(house.url)).toMatchObject({
      certificate: "failure: its certificate is self-signed: give its CA as coordinator.ca_file",
      protocol: "skipped: its certificate is no good",
    });
  });

  it("has expired", async () => {
    const { caFile, cert, key } = certificate({ from: "20200101000000Z", to: "20200201000000Z" });
    const house = await coordinator({ tls: { cert, key } });
    expect(await wayTo(house.url, { ca_file: caFile })).toMatchObject({
      certificate:
        "failure: its certificate has expired: its operator has to renew it, unless this machine's clock is wrong",
      protocol: "skipped: its certificate is no good",
    });
  });

  it("is for another host", async () => {
    const { caFile, cert, key } = certificate();
    const house = await coordinator({ tls: { cert, key } });
    expect(await wayTo(house.url.replace("127.0.0.1", "localhost"), { ca_file: caFile })).toMatchObject({
      certificate: "failure: its certificate is for another host name: dial a name it is for",
    });
  });

  it("is not there: the coordinator speaks in clear", async () => {
    const house = await coordinator();
    const way = await wayTo(house.url.replace("ws:", "wss:"));
    expect(way).toMatchObject({ certificate: expect.stringMatching(/^failure: it does not speak TLS/) as string });
  });
});
