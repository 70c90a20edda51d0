import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { engineSocket, haveEngine } from "../support/engine.ts";
import { fakeEngine, json } from "./fake-engine.ts";
import { openEngine, pullOptions, pullSmallImage, refusal, removeAll, specFor, until } from "./harness.ts";

const ID = "c".repeat(64);
const INFO = { Driver: "overlay2", CgroupVersion: "2", Runtimes: { runc: {} }, InitBinary: "docker-init" };
const VERSION = { Version: "4.3.1", ApiVersion: "1.41" };

function inspected(nodeId: string, changes: object = {}): object {
  const State = { Status: "created", Pid: 0, ExitCode: 0, OOMKilled: false, Error: "", StartedAt: "", FinishedAt: "" };
  const Config = { Labels: { "org.gpunode.node": nodeId } };
  return { Id: ID, Name: "/x", State, Config, HostConfig: { DeviceRequests: null }, ...changes };
}

it("an engine that ignores GPU requests, as Podman does, gets no workload with a GPU", async () => {
  const nodeId = "node-a";
  const asked: unknown[] = [];
  await using fake = await fakeEngine({
    "GET /info": json(INFO),
    "GET /version": json(VERSION),
    "POST /containers/create": ({ body }, response) => {
      asked.push(JSON.parse(body));
      response.writeHead(201).end(JSON.stringify({ Id: ID, Warnings: [] }));
    },
    "GET /containers/*/json": json(inspected(nodeId)),
    "DELETE /containers/*": (_, response) => void response.writeHead(204).end(),
  });
  await using engine = openEngine({ socketPath: fake.socketPath, nodeId });
  const gpu = "GPU-11111111-2222-3333-4444-555555555555";
  const refused = await refusal(engine.create(specFor(engine, "image", "true", { gpus: [gpu] })));
  expect(refused).toMatchObject({ code: "unsupported", reason: "gpu_request_ignored" });
  expect(refused.message).toContain(gpu);
  expect(asked).toMatchObject([
    { HostConfig: { DeviceRequests: [{ Driver: "nvidia", DeviceIDs: [gpu], Capabilities: [["gpu"]] }] } },
  ]);
  expect(fake.requests.at(-1)).toBe(`DELETE /containers/${ID}`);
  // Without a GPU there is nothing to ignore.
  expect(await engine.create(specFor(engine, "image", "true"))).toBe(ID);
});

it.each([
  ["Docker's own tini", "de40ad0", true],
  ["Debian's tini, which names no commit", "", true],
  ["an init program that is not there", "N/A", false],
])("an init process before the command: %s", async (_, commit, hasInit) => {
  const nodeId = "node-i";
  const asked: { HostConfig: { Init?: boolean } }[] = [];
  await using fake = await fakeEngine({
    "GET /info": json({ ...INFO, InitCommit: { ID: commit, Expected: commit } }),
    "GET /version": json(VERSION),
    "POST /containers/create": ({ body }, response) => {
      asked.push(JSON.parse(body));
      response.writeHead(201).end(JSON.stringify({ Id: ID, Warnings: [] }));
    },
    "GET /containers/*/json": json(inspected(nodeId)),
  });
  await using engine = openEngine({ socketPath: fake.socketPath, nodeId });
  await engine.create(specFor(engine, "image", "true"));
  expect(asked.map(({ HostConfig }) => HostConfig.Init ?? false)).toEqual([hasInit]);
});

it("a toolkit that is missing is named, with what to do", async () => {
  const nodeId = "node-b";
  await using fake = await fakeEngine({
    "GET /containers/*/json": json(inspected(nodeId)),
    "POST /containers/*/start": json(
      { message: 'could not select device driver "nvidia" with capabilities: [[gpu]]' },
      500,
    ),
  });
  await using engine = openEngine({ socketPath: fake.socketPath, nodeId });
  const refused = await refusal(engine.start(ID));
  expect(refused).toMatchObject({ code: "no_matching_gpu", reason: "no_gpu_support" });
  expect(refused.message).toContain("nvidia-container-toolkit");
});

it("a pull that ends like a success and has brought nothing is none", async () => {
  await using fake = await fakeEngine({
    "POST /images/create": (_, response) => {
      response.write('{"status":"Pulling from x","id":"1"}\n{"status":"Downloading","id":"a","progressDetail":{');
      response.end('"current":5,"total":10}}\nnot json\n[1,2]\n{"status":"Download complete","id":"a"}\n');
    },
  });
  await using engine = openEngine({ socketPath: fake.socketPath });
  const told: [number, number][] = [];
  const onProgress = (now: number, all: number) => void told.push([now, all]);
  const refused = await refusal(engine.pull("reg.example/x:1", pullOptions({ onProgress })));
  expect(refused).toMatchObject({ code: "pull_failed" });
  expect(refused.message).toContain("has no image");
});

it("an answer that breaks off in the middle or never comes is an engine that is away, not a hang", async () => {
  await using fake = await fakeEngine({
    "GET /containers/*/json": (_, response) => {
      response.writeHead(200, { "Content-Length": 1000 });
      response.write('{"Id":');
      setTimeout(() => response.destroy(), 50);
    },
    "GET /images/json": () => undefined,
  });
  await using engine = openEngine({ socketPath: fake.socketPath, answerMs: 500 });
  for (const asked of [engine.inspect(ID), engine.images()]) {
    expect(await refusal(asked)).toMatchObject({ code: "engine_unavailable" });
  }
});

it("what is not Docker's API is told as such", async () => {
  await using fake = await fakeEngine({
    "GET /containers/*/json": json({ Id: ID, Name: "/x", State: "running" }),
    "GET /info": json("<html>"),
    "GET /version": json(VERSION),
  });
  await using engine = openEngine({ socketPath: fake.socketPath });
  expect((await refusal(engine.inspect(ID))).message).toContain("not the Docker API's: State");
  expect(await engine.info()).toEqual({ kind: "docker", available: false });
});

it("no socket, and a socket nobody may use or hears, say what to do", async () => {
  await using nowhere = openEngine({ socketPath: "/no/such/docker.sock" });
  expect(await nowhere.info()).toEqual({ kind: "docker", available: false });
  const refused = await refusal(nowhere.image("x:1"));
  expect(refused).toMatchObject({ code: "engine_unavailable" });
  expect(refused.message).toContain("is Docker installed and running?");
  const stopped = AbortSignal.abort(new Error("enough"));
  await expect(nowhere.pull("x:1", pullOptions({ signal: stopped }))).rejects.toThrow("enough");
});

it.runIf(haveEngine)("an end whose event was lost is found all the same", async () => {
  await using deaf = await withoutEvents();
  await using engine = openEngine({ socketPath: deaf.socketPath, relistMs: 300 });
  const image = await pullSmallImage(engine, `engine-test/deaf-${process.pid}:1`);
  const id = await engine.create(specFor(engine, image, "sleep 1; exit 9"));
  await engine.start(id);
  const waiting = engine.wait(id, AbortSignal.timeout(10_000));
  await until(() => deaf.listening());
  expect(await waiting).toMatchObject({ status: "exited", exitCode: 9 });
  expect(deaf.swallowed()).toBeGreaterThan(0);
  await removeAll(engine);
});

it.runIf(haveEngine)(
  "a wait ends with its signal, many share one event stream, and it closes with the last",
  async () => {
    await using deaf = await withoutEvents();
    await using engine = openEngine({ socketPath: deaf.socketPath });
    const image = await pullSmallImage(engine, `engine-test/deaf-${process.pid}:1`);
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) {
      const id = await engine.create(specFor(engine, image, "sleep 300"));
      await engine.start(id);
      ids.push(id);
    }
    const stop = new AbortController();
    const waiting = ids.map((id) => engine.wait(id, stop.signal));
    for (const wait of waiting) wait.catch(() => undefined);
    await until(() => deaf.listening());
    expect(deaf.streams()).toBe(1);
    stop.abort(new Error("enough"));
    for (const wait of waiting) await expect(wait).rejects.toThrow("enough");
    await until(() => !deaf.listening());
    expect(await engine.inspect(ids[0] ?? "")).toMatchObject({ status: "running" });
    await removeAll(engine);
  },
);

/** A way to the run's engine on which the event stream opens as it should and then says nothing. */
async function withoutEvents() {
  const socketPath = join(tmpdir(), `gpunode-deaf-${process.pid}-${Math.random().toString(36).slice(2)}.sock`);
  let [streams, open, swallowed] = [0, 0, 0];
  const server = createServer((near) => {
    const far = connect(engineSocket());
    let isEvents = false;
    near.on("data", (data) => {
      if (data.includes("GET /events")) {
        isEvents = true;
        streams += 1;
        open += 1;
        near.once("close", () => {
          open -= 1;
        });
      }
      far.write(data);
    });
    far.on("data", (data) => {
      const end = data.indexOf("\r\n\r\n");
      if (!isEvents) near.write(data);
      else if (end >= 0 && data.toString("latin1").startsWith("HTTP/1.1")) near.write(data.subarray(0, end + 4));
      else swallowed += data.length;
    });
    far.on("end", () => near.end()).on("error", () => near.destroy());
    near.on("close", () => far.destroy()).on("error", () => far.destroy());
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  return {
    socketPath,
    streams: () => streams,
    listening: () => open > 0,
    swallowed: () => swallowed,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => void server.close(() => resolve())),
  };
}
