import { readdirSync, readFileSync, statSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Coordinator, startCoordinator } from "../../src/coordinator/server.ts";
import { advertise, agent, api, coordinator, eventually, newKey, scratch } from "./agent-side.ts";

/** fetch does not let a test choose these headers. */
function status(house: Coordinator, path: string, headers: Record<string, string>, method = "GET", body?: string) {
  return new Promise<{ status: number; code: string | undefined }>((resolve, reject) => {
    request(`${house.apiUrl}/api/v1${path}`, { method, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        resolve({ status: response.statusCode ?? 0, code: JSON.parse(text).error?.code });
      });
    })
      .on("error", reject)
      .end(body);
  });
}

describe("who may ask", () => {
  it("on loopback anybody on this machine, by its own names only", async () => {
    const house = await coordinator();
    const { port } = new URL(house.apiUrl);
    expect((await status(house, "/nodes", {})).status).toBe(200);
    expect((await status(house, "/nodes", { host: `localhost:${port}` })).status).toBe(200);
    expect(await status(house, "/nodes", { host: `evil.example:${port}` })).toEqual({
      status: 421,
      code: "wrong_host",
    });
    expect(await status(house, "/nodes", { host: "127.0.0.1:1" })).toEqual({ status: 421, code: "wrong_host" });
  });

  it("no page of another site", async () => {
    const house = await coordinator();
    const body = JSON.stringify({ image: "miner" });
    expect(await status(house, "/workloads", { origin: "https://evil.example" }, "POST", body)).toEqual({
      status: 403,
      code: "forbidden",
    });
    expect(await status(house, "/workloads", { "content-type": "text/plain" }, "POST", body)).toEqual({
      status: 400,
      code: "bad_message",
    });
    const own = { origin: house.apiUrl, "content-type": "application/json" };
    expect((await status(house, "/workloads", own, "POST", body)).status).toBe(201);
  });

  it.each([
    [
      "a form that is sent from another site",
      { origin: "http://evil.example", "content-type": "application/x-www-form-urlencoded" },
    ],
    ["a form in a frame without an origin", { origin: "null", "content-type": "text/plain" }],
    ["a request that names no origin, but the browser says where it is from", { "sec-fetch-site": "cross-site" }],
    ["a page on another port of this machine", { "sec-fetch-site": "same-site" }],
  ])("not %s, with a body or without, and no page is told that it may", async (_what, headers) => {
    const house = await coordinator();
    const key = newKey();
    await agent(house.url, { key }).start();
    for (const path of [`/nodes/${key.id}/drain`, "/tokens", "/workloads"]) {
      expect((await status(house, path, headers, "POST")).status).toBe(403);
      expect((await status(house, path, headers, "POST", "{}")).status).toBe(403);
      expect(
        (await status(house, path, { ...headers, "access-control-request-method": "POST" }, "OPTIONS")).status,
      ).toBe(403);
    }
    expect((await api(house, "GET", "/workloads")).body.workloads).toEqual([]);
  });

  it("with a token in the URL, in a cookie or as a password nobody; and no token is ever logged", async () => {
    const lines: string[] = [];
    const note = (fields: object, message: string) => void lines.push(JSON.stringify({ ...fields, message }));
    const log = { debug: note, info: note, warn: note, error: note };
    const house = await coordinator({ apiTokens: ["canary-api"], joinTokens: ["canary-join"], log });
    const basic = Buffer.from("canary-api:canary-api").toString("base64");
    for (const [path, headers] of [
      ["/nodes?access_token=canary-api&token=canary-api", {}],
      ["/nodes", { cookie: "token=canary-api" }],
      ["/nodes", { authorization: `Basic ${basic}` }],
      ["/nodes", { authorization: "Bearer canary-ap" }],
      ["/nodes", { authorization: "Bearer canary-api0" }],
      ["/nodes", { authorization: "Bearer " }],
    ] as const) {
      expect(await status(house, path, headers)).toEqual({ status: 401, code: "unauthorized" });
    }
    const made = await status(house, "/tokens", { authorization: "Bearer canary-api" }, "POST");
    expect(made.status).toBe(201);
    await agent(house.url).join({ joinToken: "canary-join" });
    expect(lines).not.toEqual([]);
    expect(lines.join()).not.toContain("canary");
  });

  it("with tokens only who has one", async () => {
    const house = await coordinator({ apiTokens: ["open-sesame", "other"] });
    expect(await status(house, "/nodes", {})).toEqual({ status: 401, code: "unauthorized" });
    expect((await status(house, "/nodes", { authorization: "Bearer wrong" })).status).toBe(401);
    expect((await status(house, "/nodes", { authorization: "Bearer open-sesame" })).status).toBe(200);
  });

  it("off loopback it does not start without", async () => {
    const options = { listen: { host: "0.0.0.0", port: 0 }, stateDir: scratch() };
    await expect(startCoordinator(options)).rejects.toThrow(/--api-token-file/);
    await expect(startCoordinator({ ...options, open: true, apiTokens: ["t"] })).rejects.toThrow(/loopback only/);
    const house = await coordinator({ ...options, apiTokens: ["t"], open: false });
    expect((await status(house, "/nodes", { authorization: "Bearer t" })).status).toBe(200);
    expect((await status(house, "/nodes", { authorization: "Bearer t", host: "evil.example" })).status).toBe(421);
  });
});

describe("bad input", () => {
  it.each([
    ["a path there is not", "GET", "/nothing", undefined, 404, "not_found"],
    ["a method there is not", "PUT", "/workloads", undefined, 404, "not_found"],
    ["a path that is not encoded right", "GET", "/nodes/%zz", undefined, 400, "bad_message"],
    ["no such workload", "GET", "/workloads/nope", undefined, 404, "unknown_workload"],
    ["no such node", "POST", "/nodes/nope/drain", {}, 404, "unknown_node"],
    ["no image", "POST", "/workloads", {}, 400, "invalid_spec"],
    ["a field there is not", "POST", "/workloads", { image: "i", gpu: 1 }, 400, "invalid_spec"],
    ["a generation", "POST", "/workloads", { image: "i", generation: 4 }, 400, "invalid_spec"],
    ["a value out of range", "POST", "/workloads", { image: "i", priority: 1001 }, 400, "invalid_spec"],
    ["a large body", "POST", "/workloads", { image: "i", env: { A: "x".repeat(300_000) } }, 413, "too_large"],
  ])("%s", async (_name, method, path, body, status, code) => {
    const house = await coordinator();
    const answer = await api(house, method, path, body);
    expect(answer).toEqual({ status, body: { error: { code, message: expect.any(String) } } });
    expect((await api(house, "GET", "/workloads")).body.workloads).toEqual([]);
  });

  it("is named in the message", async () => {
    const house = await coordinator();
    expect((await api(house, "POST", "/workloads", { image: "i", gpu: 1 })).body.error.message).toMatch(/"gpu"/);
    const { body } = await api(house, "POST", "/workloads", { image: "i", gpus: { count: -1 } });
    expect(body.error.message).toMatch(/^gpus\.count: /);
  });
});

it("makes an id where none is given", async () => {
  const house = await coordinator();
  const first = (await api(house, "POST", "/workloads", { image: "i" })).body.id;
  const second = (await api(house, "POST", "/workloads", { image: "i" })).body.id;
  expect(first).toMatch(/^w-[0-9a-f]{12}$/);
  expect(second).not.toBe(first);
});

it("secrets reach the node and nothing else: no answer, no log line, no byte on the disk", async () => {
  const stateDir = scratch();
  const written: string[] = [];
  const note = (fields: object, message: string) => void written.push(JSON.stringify(fields) + message);
  const house = await coordinator({ stateDir, log: { debug: note, info: note, warn: note, error: note } });
  const canaries = ["canary-env-5f2a", "canary-user-9c1d", "canary-password-77be"];
  const [env, username, password] = canaries;
  const submission = { id: "job", image: "i", secretEnv: { HF_TOKEN: env }, registryAuth: { username, password } };
  const answers = [await api(house, "POST", "/workloads", submission)];
  const onDisk = () =>
    readdirSync(stateDir)
      .map((name) => readFileSync(join(stateDir, name), "latin1"))
      .join();
  const files = [onDisk()];

  const side = agent(house.url);
  side.replies.assign = { code: "policy_denied", message: "no" };
  await side.start();
  expect((await side.next("assign")).workload).toMatchObject({
    secretEnv: { HF_TOKEN: env },
    registryAuth: { username, password },
  });
  await eventually(
    () => api(house, "GET", "/workloads/job"),
    ({ body }) => body.generation === 2,
  );
  files.push(onDisk());
  answers.push(
    await api(house, "GET", "/workloads"),
    await api(house, "GET", "/workloads/job"),
    await api(house, "GET", "/nodes"),
  );
  answers.push(await api(house, "POST", "/workloads", submission));
  answers.push(await api(house, "POST", "/workloads", { ...submission, registryAuth: { username: 5, password } }));
  expect(answers[2]?.body.spec).toMatchObject({ secretEnvNames: ["HF_TOKEN"], hasRegistryAuth: true });
  await house.close();
  files.push(onDisk());

  const everything = JSON.stringify(answers) + written.join("\n") + files.join();
  for (const canary of canaries) expect(everything).not.toContain(canary);
  expect(written.length).toBeGreaterThan(2);
  expect(statSync(join(stateDir, "secrets.key")).mode & 0o777).toBe(0o600);
});

it("a workload whose secrets can't be read any more fails, and says so", async () => {
  const stateDir = scratch();
  const first = await coordinator({ stateDir });
  await api(first, "POST", "/workloads", { id: "job", image: "i", secretEnv: { A: "b" } });
  await api(first, "POST", "/workloads", { id: "plain", image: "i" });
  await first.close();
  const { rmSync } = await import("node:fs");
  rmSync(join(stateDir, "secrets.key"));
  const second = await coordinator({ stateDir });
  const side = agent(second.url);
  await side.start(advertise());
  expect((await side.next("assign")).workload.id).toBe("plain");
  expect((await api(second, "GET", "/workloads/job")).body).toMatchObject({ state: "failed", reason: "secrets_lost" });
});

it("tells all events in order, from a position on, and goes on with what comes", async () => {
  const house = await coordinator();
  const [one, two] = [agent(house.url), agent(house.url)];
  await Promise.all([one.start(), two.start()]);
  const event = (seq: number) => ({ seq, kind: "node", state: "started" });
  one.tell([event(1), event(2)]);
  await one.next("ack");
  two.tell([event(1)]);
  await two.next("ack");
  const response = await fetch(`${house.apiUrl}/api/v1/events?after=1&follow=1`);
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const lines = async (count: number) => {
    while (text.split("\n").length <= count) text += (await reader?.read())?.value ?? "";
    return text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  };
  expect(await lines(2)).toMatchObject([
    { position: 2, node: one.key.id, seq: 2, kind: "node" },
    { position: 3, node: two.key.id, seq: 1 },
  ]);
  one.tell([event(3)]);
  expect((await lines(3)).at(-1)).toMatchObject({ position: 4, node: one.key.id, seq: 3 });
  await reader?.cancel();
});
