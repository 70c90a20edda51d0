import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it, onTestFinished } from "vitest";
import { connectLocal, DaemonNotRunning } from "../../src/local/client.ts";
import { type LocalActions, type OutputChunk, startLocalApi } from "../../src/local/server.ts";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { noActions } from "./no-actions.ts";
import { exampleSnapshot } from "./snapshot-example.ts";

const root = resolve(import.meta.dirname, "../..");
const log = { debug() {}, info() {}, error() {} };

function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-local-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

async function* chunks(list: OutputChunk[]): AsyncGenerator<OutputChunk> {
  yield* list;
}

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of source) list.push(item);
  return list;
}

async function api(actions: Partial<LocalActions> = {}, socketPath = join(scratch(), "run/gpunode.sock")) {
  const server = await startLocalApi({
    socketPath,
    snapshot: exampleSnapshot,
    actions: { ...noActions, ...actions },
    log,
  });
  let closed: Promise<void> | undefined;
  const close = () => {
    closed ??= Promise.resolve(server[Symbol.asyncDispose]());
    return closed;
  };
  onTestFinished(close);
  return { socketPath, client: connectLocal(socketPath), close };
}

it("shows the snapshot whole, on a socket that only its user and group may use", async () => {
  const { client, socketPath, close } = await api();
  expect(await client.status()).toEqual(exampleSnapshot());
  expect(statSync(socketPath).mode & 0o777).toBe(0o660);
  expect(readdirSync(dirname(socketPath)).sort()).toEqual(["gpunode.lock", "gpunode.pid", "gpunode.sock"]);
  await close();
  expect(existsSync(socketPath)).toBe(false);
  expect(existsSync(join(socketPath, "../gpunode.pid"))).toBe(false);
});

it("passes drain and resume on, and what the daemon refuses back", async () => {
  const asked: unknown[] = [];
  const { client } = await api({
    drain: (options) => ({ holds: asked.push(options) > 0 ? [] : [] }),
    resume() {
      throw new GpunodeError("policy_denied", "not now");
    },
  });
  await client.drain();
  await client.drain({ graceSeconds: 5 });
  expect(asked).toEqual([{}, { graceSeconds: 5 }]);
  await expect(client.resume()).rejects.toMatchObject({
    name: "DaemonRefused",
    code: "policy_denied",
    message: "not now",
  });
});

it("tells the last hours, as many as it is asked for", async () => {
  const asked: number[] = [];
  const { client } = await api({
    history(hours) {
      asked.push(hours);
      return noActions.history(hours);
    },
  });
  const { series, host, spans, marks } = await client.history({ hours: 6 });
  expect({ asked, series, spans, marks }).toEqual({ asked: [6], series: {}, spans: [], marks: [] });
  expect(host).toMatchObject({ stepMs: 10_000, cpuPercent: [null], max: { memoryUsedMiB: [null] } });
  for (const hours of [0, 25, 1.5, -1, Number.NaN])
    await expect(client.history({ hours })).rejects.toMatchObject({ code: "bad_message" });
  expect(asked).toEqual([6]);
});

it("gives output byte for byte, also what is not UTF-8", async () => {
  const written: OutputChunk[] = [
    { stream: "stdout", data: Buffer.from("grüße\nline 2") },
    { stream: "stderr", data: Buffer.from([0xff, 0x00, 0x0a]) },
  ];
  const { client } = await api({ logs: () => chunks(written) });
  expect(await all(client.logs("train-1", { follow: false }))).toEqual(written);
});

it("says which workload is unknown, also where it turns out only while reading", async () => {
  const { client } = await api({
    logs(id) {
      if (id === "nobody") throw new GpunodeError("unknown_workload", 'this node has no workload "nobody"');
      return (async function* () {
        yield { stream: "stdout", data: Buffer.from("a") } as const;
        throw new GpunodeError("engine_unavailable", "the engine went away");
      })();
    },
  });
  await expect(all(client.logs("nobody", { follow: false }))).rejects.toMatchObject({
    code: "unknown_workload",
  });
  await expect(all(client.logs("x", { follow: true }))).rejects.toMatchObject({
    code: "engine_unavailable",
  });
});

it("a slow reader slows the source, and the source is closed when the reader leaves", async () => {
  let produced = 0;
  let ended = false;
  const piece = { stream: "stdout", data: Buffer.alloc(64 * 1024, "x") } as const;
  const { client } = await api({
    logs: () =>
      (async function* () {
        try {
          for (; produced < 10_000; produced += 1) yield piece;
        } finally {
          ended = true;
        }
      })(),
  });
  for await (const { data } of client.logs("train-1", { follow: true })) {
    expect(data.length).toBe(piece.data.length);
    await sleep(300);
    break;
  }
  // 10,000 pieces are 640 MB; what fits into the sockets' buffers is a few.
  expect(produced).toBeLessThan(100);
  while (!ended) await sleep(10);
});

it("ends in bounded time while somebody follows a silent workload", async () => {
  const { client, close } = await api({
    logs: (_id, { signal }) =>
      (async function* () {
        yield { stream: "stdout", data: Buffer.from("first") } as const;
        await once(signal, "abort");
      })(),
  });
  const reading = client.logs("train-1", { follow: true })[Symbol.asyncIterator]();
  expect((await reading.next()).value.data.toString()).toBe("first");
  const next = reading.next();
  const outcome = expect(next).rejects.toThrow("the daemon ended while its output was read");
  const before = performance.now();
  await close();
  expect(performance.now() - before).toBeLessThan(1000);
  await outcome;
});

it("answers what it does not know with an error", async () => {
  const { socketPath } = await api();
  const { request } = await import("node:http");
  const get = (method: string, path: string) =>
    new Promise<{ status: number | undefined; body: unknown }>((done, fail) => {
      request({ socketPath, method, path }, async (response) => {
        const { json } = await import("node:stream/consumers");
        done({ status: response.statusCode, body: await json(response) });
      })
        .once("error", fail)
        .end();
    });
  expect(await get("GET", "/v1/nothing")).toMatchObject({ status: 404 });
  expect(await get("GET", "/v1/drain")).toMatchObject({ status: 404 });
  expect(await get("GET", "/v1/workloads/x/logs?tail=many")).toEqual({
    status: 400,
    body: { error: { code: "bad_message", message: "tail=many: expected a whole number" } },
  });
  expect(await get("GET", "/v1/workloads")).toEqual({ status: 200, body: exampleSnapshot().workloads });
});

it("replaces the socket of a daemon that was killed", async () => {
  const socketPath = join(scratch(), "gpunode.sock");
  const other = await otherDaemon(socketPath);
  other.kill("SIGKILL");
  await once(other, "exit");
  expect(existsSync(socketPath)).toBe(true);
  const { client } = await api({}, socketPath);
  expect((await client.status()).node.pid).toBe(process.pid);
});

it("never takes the place of a living daemon, also one that hangs", async () => {
  const socketPath = join(scratch(), "gpunode.sock");
  const other = await otherDaemon(socketPath);
  const refused = `another gpunode is already running (pid ${other.pid})`;
  await expect(api({}, socketPath)).rejects.toThrow(refused);
  other.kill("SIGSTOP");
  await expect(api({}, socketPath)).rejects.toThrow(refused);
  other.kill("SIGCONT");
  expect((await connectLocal(socketPath).status()).node.pid).toBe(other.pid);
});

it("says in a sentence that no daemon runs, and which socket was tried", async () => {
  const socketPath = join(scratch(), "gpunode.sock");
  const message = `the daemon is not running: there is no socket ${socketPath}. Start it with "sudo systemctl start gpunode", or here with "gpunode run".`;
  await expect(connectLocal(socketPath).status()).rejects.toEqual(new DaemonNotRunning(message));
  const server = createServer().listen(socketPath);
  await once(server, "listening");
  // Left behind as by a kill: bound, with nobody listening.
  const { linkSync } = await import("node:fs");
  linkSync(socketPath, `${socketPath}.stale`);
  server.close();
  await expect(connectLocal(`${socketPath}.stale`).status()).rejects.toThrow("nobody answers on the socket");
});

it("refuses a socket path the kernel would cut", async () => {
  const long = join(scratch(), "x".repeat(100), "gpunode.sock");
  await expect(api({}, long)).rejects.toThrow("at most 107 work; set a shorter run_dir");
});

/** A second daemon in a process of its own, listening when this resolves. */
async function otherDaemon(socketPath: string): Promise<ChildProcess> {
  const program = `
    import { startLocalApi } from "./src/local/server.ts";
    import { exampleSnapshot } from "./test/local/snapshot-example.ts";
    const quiet = { debug() {}, info() {}, error() {} };
    await startLocalApi({ socketPath: ${JSON.stringify(socketPath)}, snapshot: exampleSnapshot, actions: {}, log: quiet });
    console.log("up");
  `;
  const child = spawn(join(root, "node_modules/.bin/node"), ["--input-type=module", "-e", program], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  });
  await once(child.stdout, "data");
  return child;
}

it.each([
  ["//", 404, "not_found"],
  ["/v1/workloads/%zz/logs", 400, "bad_message"],
  ["*", 404, "not_found"],
])("answers a request for %s in words, and goes on", async (path, status, code) => {
  const { socketPath, client } = await api();
  const sent = request({ socketPath, path, method: "GET" }).end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  const body = JSON.parse(Buffer.concat(await all(response as AsyncIterable<Buffer>)).toString());
  expect([response.statusCode, body.error.code]).toEqual([status, code]);
  expect(await client.status()).toEqual(exampleSnapshot());
});
