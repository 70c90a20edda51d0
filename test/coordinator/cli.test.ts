import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { text } from "node:stream/consumers";
import { expect, it, onTestFinished } from "vitest";
import { advertise, agent, coordinator, type Frame, scratch } from "./agent-side.ts";

const root = resolve(import.meta.dirname, "../..");
const MAIN = `
  import { Command } from "commander";
  import { registerCoordinator } from "./src/cli/coordinator.ts";
  const program = new Command("gpunode");
  registerCoordinator(program);
  await program.parseAsync(process.argv.slice(1), { from: "user" });
`;

function start(args: string[], env: Record<string, string> = {}): ChildProcess {
  const child = spawn(
    join(root, "node_modules/.bin/node"),
    ["--input-type=module", "-e", MAIN, "--", "coordinator", ...args],
    {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["pipe", "pipe", "pipe"],
    },
  );
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  return child;
}

async function outcome(
  child: ChildProcess,
  stdin?: string,
): Promise<{ code: number | null; out: string; err: string }> {
  child.stdin?.end(stdin);
  const [out, err, [code]] = await Promise.all([
    text(child.stdout as NodeJS.ReadableStream),
    text(child.stderr as NodeJS.ReadableStream),
    once(child, "exit") as Promise<[number | null]>,
  ]);
  return { code, out, err };
}

const gpunode = (args: string[], options: { env?: Record<string, string>; stdin?: string } = {}) =>
  outcome(start(args, options.env), options.stdin);

it("an operator's day: serve, a node joins, submit --wait, look, logs, drain, stop", { timeout: 60_000 }, async () => {
  const state = scratch();
  const server = start(["serve", "--listen", "127.0.0.1:0", "--state", state]);
  let told = "";
  server.stdout?.on("data", (chunk) => {
    told += chunk;
  });
  while (!/token {4}\S+/.test(told)) await once(server.stdout as NodeJS.ReadableStream, "data");
  const url = /agents +(\S+)/.exec(told)?.[1] ?? "";
  const apiUrl = (/API +(\S+)\/api\/v1/.exec(told)?.[1] ?? "").toString();
  const joinToken = /token +(\S+)/.exec(told)?.[1] ?? "";
  const env = { GPUNODE_COORDINATOR_API: apiUrl, HUSH: "quiet" };

  expect(await gpunode(["nodes"], { env })).toMatchObject({ code: 0, out: "no node has joined yet\n" });
  const side = agent(url);
  await side.start(advertise(), { joinToken, node: helloNode(side.key, "rig\u001b[31m") });
  const nodes = await gpunode(["nodes"], { env });
  expect(nodes.out).toMatch(
    /^NAME +ID +STATE +GPUS +WORKLOADS +LAST SEEN +30 DAYS\nrig \[31m +[a-z2-7]{26} +available +1 × NVIDIA T4 +0 +now +-\n$/,
  );

  const flags = ["--id", "job", "--gpus", "1", "--min-vram", "1000", "--precision", "fp16", "--precision", "int8"];
  const more = [
    "--env",
    "A=1=2",
    "--secret-env",
    "HUSH",
    "--port",
    "80",
    "--memory",
    "64",
    "--cpus",
    "0.5",
    "--requeue",
    "--wait",
  ];
  const submitted = gpunode(["submit", ...flags, ...more, "busybox:1", "--", "sh", "-c", "exit 3"], { env });
  const { workload } = await side.next("assign", 20_000);
  expect(workload).toMatchObject({
    id: "job",
    image: "busybox:1",
    command: ["sh", "-c", "exit 3"],
    gpus: { count: 1, minVramMiB: 1000, precisions: ["fp16", "int8"] },
    env: { A: "1=2" },
    secretEnv: { HUSH: "quiet" },
    ports: [{ container: 80, protocol: "tcp" }],
    resources: { memoryMiB: 64, cpus: 0.5 },
  });
  const state1 = (seq: number, name: string, also: object = {}) => ({
    seq,
    workload: "job",
    generation: 1,
    state: name,
    ...also,
  });
  side.tell([
    state1(1, "running"),
    state1(2, "failed", { reason: "exit_code", message: "exited with code 3", exitCode: 3 }),
  ]);
  const ended = await submitted;
  expect(ended.code).toBe(1);
  expect(ended.out).toMatch(
    /workload running\n.*workload failed +reason=exit_code message=exited with code 3 exitCode=3\njob is failed\n$/,
  );

  const list = await gpunode(["workloads"], { env });
  expect(list.out).toMatch(/^ID +STATE +NODE.*\njob +failed +rig \[31m +1 +busybox:1 .* exited with code 3\n$/);
  const one = await gpunode(["workloads", "job", "--json"], { env });
  expect(JSON.parse(one.out)).toMatchObject({
    id: "job",
    exitCode: 3,
    spec: { onPreempt: "requeue" },
    events: [{ state: "running" }, { state: "failed" }],
  });
  expect((await gpunode(["workloads", "job"], { env })).out).toMatch(/^id +job\n[\s\S]*exit code +3\n/);

  const reading = gpunode(["logs", "job"], { env });
  const { id: ref } = await side.next("logs", 20_000);
  const piece = (stream: string, data: string): Frame => ({ type: "log", ref, workload: "job", stream, data });
  side.send(piece("stdout", "out\n"));
  side.send(piece("stderr", "err\n"));
  side.send({ type: "logEnd", ref, reason: "end" });
  expect(await reading).toEqual({ code: 0, out: "out\n", err: "err\n" });

  expect(await gpunode(["drain", side.key.id], { env })).toMatchObject({
    code: 0,
    out: `${side.key.id} is draining\n`,
  });
  expect(await gpunode(["resume", side.key.id, "--json"], { env })).toMatchObject({ code: 0 });
  const barred = await gpunode(["bar", side.key.id, "--reason", "spoils its work"], { env });
  expect(barred).toMatchObject({ code: 0, out: `${side.key.id} is barred\n` });
  expect((await side.end()).reason).toBe("the operator of this coordinator has barred this node: spoils its work");
  expect((await gpunode(["nodes"], { env })).out).toContain(" barred ");
  const unbarred = await gpunode(["unbar", side.key.id], { env });
  expect(unbarred).toMatchObject({ code: 0, out: `${side.key.id} may come in again\n` });

  server.kill("SIGTERM");
  const [code] = await once(server, "exit");
  expect(code).toBe(0);
});

function helloNode(key: { id: string; publicKey: string }, name: string) {
  return { id: key.id, publicKey: key.publicKey, name, labels: {}, bootId: "b", agentVersion: "1" };
}

it("nodes tells what each has proved to be like, and the API passes it on", { timeout: 30_000 }, async () => {
  const house = await coordinator();
  const reliability = {
    since: "2026-01-01T00:00:00.000Z",
    upSeconds: 99_899,
    downSeconds: 101,
    workloads: { succeeded: 12, failed: 1, stopped: 0, preempted: 2, lost: 0 },
    preemptions: [
      { cause: "owner", count: 1, noticeSeconds: { min: 30, p50: 30 } },
      { cause: "schedule", count: 1, noticeSeconds: { min: 10, p50: 10 } },
    ],
  };
  await agent(house.url).start(advertise({ reliability }));
  const env = { GPUNODE_COORDINATOR_API: house.apiUrl };
  const { out } = await gpunode(["nodes"], { env });
  expect(out).toMatch(/ {2}now +99\.8 % up, 12 done, 1 failed, 2 preempted \(notice ≥ 10 s\)\n$/);
  expect(JSON.parse((await gpunode(["nodes", "--json"], { env })).out)).toMatchObject([{ reliability }]);
});

it("takes a workload from a file or stdin, and its token from a file", { timeout: 30_000 }, async () => {
  const house = await coordinator({ apiTokens: ["sesame"] });
  const env = { GPUNODE_COORDINATOR_API: house.apiUrl };
  const dir = scratch();
  writeFileSync(join(dir, "token"), "sesame\n");
  writeFileSync(join(dir, "spec.json"), JSON.stringify({ image: "busybox" }));
  const token = ["--api-token-file", join(dir, "token")];
  const [refused, file, stdin] = await Promise.all([
    gpunode(["submit", "busybox"], { env }),
    gpunode(["submit", ...token, "--file", join(dir, "spec.json"), "--id", "a"], { env }),
    gpunode(["submit", ...token, "--file", "-", "--json"], { env, stdin: '{"id":"b","image":"busybox"}' }),
  ]);
  expect(refused).toMatchObject({
    code: 1,
    out: "",
    err: expect.stringMatching(/^gpunode: an API token is needed.*\n$/),
  });
  expect(file).toMatchObject({ code: 0, out: "a waits: no node is connected\n" });
  expect(JSON.parse(stdin.out)).toMatchObject({ id: "b", state: "pending" });
});

it.each([
  [
    ["nodes", "--coordinator", "http://127.0.0.1:9"],
    1,
    /^gpunode: the coordinator at http:\/\/127\.0\.0\.1:9\/api\/v1 can't be reached: \S.*\n$/,
  ],
  [["nodes", "--coordinator", "nowhere"], 1, /^gpunode: "nowhere" is no URL of a coordinator/],
  [["submit"], 2, /^gpunode: name an image/],
  [["submit", "i", "--gpus", "many"], 2, /^gpunode: --gpus many: expected a whole number\n$/],
  [["submit", "i", "--secret-env", "NO_SUCH_VARIABLE_HERE"], 2, /there is no such variable here/],
  [
    ["submit", "i", "--secret-env", "TOKEN=canary"],
    2,
    /^(?!.*canary)gpunode: --secret-env TOKEN=…: give the name alone/,
  ],
  [["serve", "--listen", "7800"], 2, /^gpunode: --listen 7800: expected host:port/],
  [["serve", "--tls-cert", "x"], 2, /go together/],
])("%j fails in one sentence", async (args, code, err) => {
  const failed = await gpunode(args);
  expect(failed).toEqual({ code, out: "", err: expect.stringMatching(err) });
});

it("says in one sentence when its port is taken", async () => {
  const house = await coordinator();
  const { host } = new URL(house.apiUrl);
  const failed = await gpunode(["serve", "--listen", host, "--state", scratch()]);
  expect(failed).toMatchObject({ code: 1, err: expect.stringMatching(/^gpunode: .*EADDRINUSE.*\n$/) });
});

it("token create prints a join token that lets one node in", { timeout: 30_000 }, async () => {
  const house = await coordinator({ joinTokens: ["lasting"] });
  const create = (...args: string[]) => outcome(start(["token", "create", "--coordinator", house.apiUrl, ...args]));
  const { code, out } = await create();
  expect(code).toBe(0);
  const joinToken = out.trim();
  await agent(house.url).join({ joinToken });
  const second = agent(house.url);
  second.send(second.hello(await second.next("challenge"), new URL(house.url).host, { joinToken }));
  expect((await second.end()).code).toBe(4403);
  const made = JSON.parse((await create("--uses", "2", "--expires", "30m", "--json")).out);
  expect(made).toMatchObject({ uses: 2, token: expect.any(String) });
  const minutes = (Date.parse(made.expiresAt) - Date.now()) / 60_000;
  expect(minutes).toBeGreaterThan(25);
  expect(minutes).toBeLessThanOrEqual(30);
  expect((await create("--uses", "0")).code).toBe(1);
  expect((await create("--expires", "soon")).code).toBe(2);
});
