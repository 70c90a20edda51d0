import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { request } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { json } from "node:stream/consumers";
import { describe, expect, it, onTestFinished } from "vitest";
import { connectLocal } from "../../src/local/client.ts";
import { refuteRequest } from "../../src/local/guard.ts";
import { type LocalActions, startLocalApi } from "../../src/local/server.ts";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { noActions } from "./no-actions.ts";
import { exampleSnapshot } from "./snapshot-example.ts";

/** A daemon's local API, with all that it was asked to do and all that it logged as an error. */
async function daemon() {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-local-"));
  // The folders above must let others through: the socket alone is to keep them out.
  chmodSync(dir, 0o755);
  const socketPath = join(dir, "run/gpunode.sock");
  const done: string[] = [];
  const errors: string[] = [];
  const drain: LocalActions["drain"] = () => {
    done.push("drain");
    return { holds: [] };
  };
  const logs: LocalActions["logs"] = (id) => {
    done.push(`logs ${id}`);
    throw new GpunodeError("unknown_workload", `there is no workload ${id}`);
  };
  const server = await startLocalApi({
    socketPath,
    snapshot: exampleSnapshot,
    actions: { ...noActions, drain, logs },
    log: { debug() {}, info() {}, error: (_fields, message) => errors.push(message) },
  });
  onTestFinished(async () => {
    await server[Symbol.asyncDispose]();
    rmSync(dir, { recursive: true, force: true });
  });
  return { socketPath, done, errors };
}

function ask(
  at: { socketPath: string } | { port: number },
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body?: string,
): Promise<{ status: number; headers: Record<string, unknown>; body: { error?: { code: string; message: string } } }> {
  return new Promise((done, fail) => {
    const to = "port" in at ? { host: "127.0.0.1", ...at } : at;
    request({ ...to, method, path, headers, agent: false }, async (response) => {
      done({ status: response.statusCode ?? 0, headers: response.headers, body: (await json(response)) as object });
    })
      .once("error", fail)
      .end(body);
  });
}

/** All that comes back until the daemon closes. */
function raw(socketPath: string, text: string): Promise<string> {
  return new Promise((done, fail) => {
    let answer = "";
    const socket = connect(socketPath, () => socket.write(text));
    onTestFinished(() => void socket.destroy());
    socket.setEncoding("latin1").on("data", (chunk) => {
      answer += chunk;
    });
    socket.once("close", () => done(answer)).once("error", fail);
  });
}

describe.runIf(process.geteuid?.() === 0)("another user of this machine", () => {
  const knock = (socketPath: string, uid: number, groups: string) => {
    const program = `require("node:net").connect(process.argv[1]).once("connect", () => process.exit(0)).once("error", (error) => { console.log(error.code); process.exit(1); })`;
    const node = resolve(import.meta.dirname, "../../node_modules/.bin/node");
    return spawnSync(
      "setpriv",
      [`--reuid=${uid}`, `--regid=${uid}`, groups, "--no-new-privs", "--", node, "-e", program, socketPath],
      { cwd: "/", encoding: "utf8" },
    );
  };

  it("is kept out by the kernel; a member of the socket's group is let in", async () => {
    const { socketPath } = await daemon();
    expect(statSync(socketPath).mode & 0o777).toBe(0o660);
    const { stdout, status, stderr } = knock(socketPath, 54_321, "--clear-groups");
    expect([status, stdout.trim()], stderr).toEqual([1, "EACCES"]);
    expect(knock(socketPath, 54_321, `--groups=${statSync(socketPath).gid}`).status).toBe(0);
  });

  it("can neither take the daemon's lock nor change what lies beside the socket", async () => {
    const { socketPath } = await daemon();
    const dir = dirname(socketPath);
    const attempt = (script: string) =>
      spawnSync("setpriv", ["--reuid=54321", "--regid=54321", "--clear-groups", "--", "sh", "-c", script, dir], {
        cwd: "/",
      }).status;
    expect(attempt('cat "$0/gpunode.lock"')).not.toBe(0);
    expect(attempt('rm -f "$0/gpunode.sock"')).not.toBe(0);
    expect(attempt('echo 1 >"$0/gpunode.pid"')).not.toBe(0);
    expect(attempt('cat "$0/gpunode.pid"')).toBe(0);
  });
});

describe("a web page, where somebody forwards a port of loopback to the socket", () => {
  const page = "http://evil.example";
  it.each([
    ["of another site", { origin: page }],
    ["in a frame without an origin", { origin: "null" }],
    ["of another site, by a request that names no origin", { "sec-fetch-site": "cross-site" }],
    ["of the same site, another port", { "sec-fetch-site": "same-site" }],
    ["under a name that was made to point here", { host: "rebound.evil.example" }],
    ["under a name that begins as ours does", { host: "localhost.evil.example" }],
    ["under a number that is not loopback", { host: "192.168.0.10:7801" }],
  ])("%s is refused, and does nothing", async (_what, headers) => {
    const { socketPath, done } = await daemon();
    const proxy = createServer((client) => {
      const socket = connect(socketPath);
      client.on("error", () => undefined).on("close", () => socket.destroy());
      socket.on("error", () => undefined).on("close", () => client.destroy());
      client.pipe(socket).pipe(client);
    });
    await new Promise<void>((ready) => proxy.listen(0, "127.0.0.1", ready));
    onTestFinished(() => new Promise<void>((closed) => void proxy.close(() => closed())));
    const { port } = proxy.address() as AddressInfo;
    for (const [method, path] of [
      ["GET", "/v1/status"],
      ["POST", "/v1/drain"],
    ] as const) {
      const answer = await ask({ port }, method, path, headers);
      expect([answer.status, answer.body.error?.code]).toEqual([403, "policy_denied"]);
      expect(Object.keys(answer.headers).filter((name) => name.startsWith("access-control"))).toEqual([]);
    }
    // What a browser asks before it sends something unusual.
    expect(
      (await ask({ port }, "OPTIONS", "/v1/drain", { ...headers, "access-control-request-method": "POST" })).status,
    ).toBe(403);
    expect(done).toEqual([]);
    expect((await ask({ port }, "GET", "/v1/status")).status).toBe(200);
  });

  it.each(["localhost", "LOCALHOST:80", "127.0.0.1:7801", "127.9.9.9", "[::1]:7801"])("%s is this machine", (host) => {
    expect(refuteRequest({ host })).toBeUndefined();
    expect(refuteRequest({ host, "sec-fetch-site": "none" })).toBeUndefined();
  });

  it.each([
    "",
    "localhost:",
    "localhost:99999999",
    "127.0.0.1.example",
    "127.0.0.1@evil",
    "[::2]",
    "0.0.0.0",
    "2130706433",
  ])("%j is not", (host) => {
    expect(refuteRequest({ host })).toMatch(/Host header/);
  });
});

describe("a client gone wrong", () => {
  it.each([
    "/v1/../v1/drain",
    "//evil.example/v1/drain",
    "/v1/drain/",
    "/v1//drain",
    "/V1/drain",
    "/v1/drain%00",
    "/v1/%64rain",
    "*",
  ])("%s is no path", async (path) => {
    const { socketPath, done } = await daemon();
    const answer = await raw(socketPath, `POST ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 40[04] /);
    expect(done).toEqual([]);
  });

  it.each(["GET", "PUT", "DELETE", "HEAD", "PATCH", "TRACE"])("%s does not do what POST does", async (method) => {
    const { socketPath, done } = await daemon();
    const answer = await raw(
      socketPath,
      `${method} /v1/drain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 404 /);
    expect(done).toEqual([]);
  });

  it("a header that names another method changes nothing", async () => {
    const { socketPath, done } = await daemon();
    expect((await ask({ socketPath }, "GET", "/v1/drain", { "x-http-method-override": "POST" })).status).toBe(404);
    expect(done).toEqual([]);
  });

  it("a way up in a workload's id stays an id, and one that cannot be read is an error of the client's", async () => {
    const { socketPath, done, errors } = await daemon();
    expect((await ask({ socketPath }, "GET", "/v1/workloads/..%2F..%2Fetc%2Fpasswd/logs")).status).toBe(404);
    expect(done).toEqual(["logs ../../etc/passwd"]);
    expect((await ask({ socketPath }, "GET", "/v1/workloads/%E0%A4%A/logs")).body.error?.code).toBe("bad_message");
    expect(errors).toEqual([]);
  });

  it("a body is not read, however long, and nothing is done", async () => {
    const { socketPath, done } = await daemon();
    expect((await ask({ socketPath }, "POST", "/v1/drain", {}, '{"graceSeconds": 0}')).status).toBe(413);
    const endless = connect(socketPath);
    onTestFinished(() => void endless.destroy());
    endless.on("error", () => undefined).resume();
    endless.write("POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    const closed = new Promise<void>((gone) => endless.once("close", () => gone()));
    const pump = setInterval(() => endless.write(`10000\r\n${"x".repeat(0x10000)}\r\n`), 5);
    onTestFinished(() => clearInterval(pump));
    await closed;
    clearInterval(pump);
    expect(done).toEqual([]);
  }, 30_000);

  it.each([
    ["garbage", "\x16\x03\x01 \x00\x01\r\n\r\n"],
    [
      "two lengths",
      "POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ],
    [
      "a length and chunks",
      "POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ["no host", "POST /v1/drain HTTP/1.1\r\nConnection: close\r\n\r\n"],
    ["headers without end", `POST /v1/drain HTTP/1.1\r\nHost: localhost\r\n${"X-Fill: y\r\n".repeat(2000)}`],
  ])("%s is answered with an error, and the connection is closed", async (_what, text) => {
    const { socketPath, done } = await daemon();
    expect(await raw(socketPath, text)).toMatch(/^HTTP\/1\.1 4\d\d /);
    expect(done).toEqual([]);
    expect((await connectLocal(socketPath).status()).node.pid).toBe(process.pid);
  });

  it("one request after a refused one in the same breath is not smuggled past", async () => {
    const { socketPath, done } = await daemon();
    const inner = "POST /v1/drain HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const answer = await raw(
      socketPath,
      `GET /v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${inner.length}\r\n\r\n${inner}`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 413 /);
    expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1);
    expect(done).toEqual([]);
  });

  it("hundreds of idle connections are held to a number and let go of, and the owner comes through again", async () => {
    const { socketPath } = await daemon();
    const idle: Socket[] = [];
    let closed = 0;
    onTestFinished(() => {
      for (const socket of idle) socket.destroy();
    });
    for (let count = 0; count < 1000; count += 1) {
      const socket = connect(socketPath);
      socket
        .on("error", () => undefined)
        .on("close", () => {
          closed += 1;
        });
      socket.resume();
      idle.push(socket);
    }
    // The surplus at once, the rest when they have said nothing for five seconds.
    await expect.poll(() => closed, { timeout: 5000 }).toBeGreaterThanOrEqual(1000 - 256);
    await expect.poll(() => closed, { timeout: 20_000 }).toBe(1000);
    expect((await connectLocal(socketPath).status()).node.pid).toBe(process.pid);
  }, 40_000);
});
