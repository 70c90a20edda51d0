import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { CoordinatorClient } from "../../src/coordinator/client.ts";
import { startRegistry } from "../../src/demo/registry.ts";
import { startEchoingRegistry } from "../support/echoing-registry.ts";
import { docker, haveEngine, pushImage, smallImage } from "../support/engine.ts";
import { FakeCoordinator } from "../support/fake-coordinator.ts";
import { Canaries, processTree, TEMPORARY } from "./canaries.ts";
import { told } from "./frames.ts";
import { patiently, Rig } from "./rig.ts";

const program = resolve(import.meta.dirname, "../../bin/gpunode.js");
const PATIENCE_MS = 180_000;
const sh = (script: string) => ["sh", "-c", script];
const odd = (core: string) => `p/+&%"é ${core}\\`;

/** What the owner and the operator can see, read through every door there is. */
type Seen = { [where: string]: string };

function expectClean(canaries: Canaries, seen: Seen): void {
  const found = Object.entries(seen).flatMap(([where, text]) => canaries.in(text).map((name) => `${name} in ${where}`));
  expect(found).toEqual([]);
  // A door that shows nothing at all proves nothing.
  expect(Object.entries(seen).filter(([, text]) => text === "")).toEqual([]);
}

function ownersView(rig: Rig): Seen {
  const commands = [["status"], ["status", "--json"], ["workloads"], ["workloads", "--json"], ["gpus"], ["usage"]];
  commands.push(["config", "show"], ["config", "show", "--json"], ["config", "check"]);
  const answers = commands.map((args) => {
    const { stdout, stderr } = rig.gpunode(...args);
    return [`gpunode ${args.join(" ")}`, stdout + stderr];
  });
  return Object.fromEntries(answers);
}

/** All that the local page and Prometheus are shown. */
async function pageView(rig: Rig): Promise<Seen> {
  const { page } = rig.status();
  const paths = ["", "page.js", "v1/status", "v1/history", "v1/usage-days", "metrics"];
  const answers = paths.map(async (path) => [`page /${path}`, await (await fetch(`${page}${path}`)).text()] as const);
  return Object.fromEntries(await Promise.all(answers));
}

/** The whole of a coordinator's HTTP API. */
async function operatorsView(url: string, token: string, ids: readonly string[]): Promise<Seen> {
  const paths = ["nodes", "workloads", "events", ...ids.flatMap((id) => [`workloads/${id}`, `workloads/${id}/logs`])];
  const headers = { Authorization: `Bearer ${token}` };
  // Asked again where it was closed meanwhile: a connection of before, while this process waited for commands.
  const read = async (path: string) => {
    const response = await fetch(`${url}/api/v1/${path}`, { headers });
    return `${response.status} ${await response.text()}`;
  };
  const answers = paths.map(async (path) => [path, await patiently(() => read(path))] as const);
  return Object.fromEntries(await Promise.all(answers));
}

/** The reference coordinator as its operator starts it: a process of its own, the join token on its command line. */
class CoordinatorProcess implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), "gpunode-canary-coordinator-"));
  readonly stateDir = join(this.dir, "state");
  readonly #child: ChildProcess;
  output = "";

  constructor(options: { joinToken: string; apiTokenFile: string }) {
    const args = ["coordinator", "serve", "--listen", "127.0.0.1:0", "--state", this.stateDir];
    args.push("--join-token", options.joinToken, "--api-token-file", options.apiTokenFile);
    this.#child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    const keep = (chunk: Buffer) => {
      this.output += chunk.toString();
    };
    this.#child.stdout?.on("data", keep);
    this.#child.stderr?.on("data", keep);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async url(): Promise<string> {
    return await patiently(() => /http:\/\/127\.0\.0\.1:\d+/.exec(this.output)?.[0]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#child, "close");
    this.#child.kill("SIGTERM");
    await closed;
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** An HTTP proxy that refuses the first two and says with what they came, and lets the others through. */
async function startProxy(): Promise<AsyncDisposable & { port: number; heard: string[] }> {
  const heard: string[] = [];
  const sockets = new Set<Socket>();
  const server: Server = createServer().listen(0, "127.0.0.1");
  server.on("connect", (request, near: Socket) => {
    const login = request.headers["proxy-authorization"] ?? "";
    heard.push(Buffer.from(login.replace("Basic ", ""), "base64").toString());
    sockets.add(near.on("error", () => undefined));
    if (heard.length <= 2) {
      near.end(`HTTP/1.1 407 no, ${login}\r\nX-Login: ${login}\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    const [host, port] = (request.url ?? "").split(":");
    const far = connect(Number(port), host, () => near.write("HTTP/1.1 200 OK\r\n\r\n"));
    sockets.add(far.on("error", () => undefined));
    near.pipe(far).pipe(near);
  });
  await once(server, "listening");
  return {
    heard,
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => server.close(done));
    },
  };
}

describe.runIf(haveEngine)("secrets, with the daemon at its most talkative", () => {
  test(
    "are in no log, file, answer, event or process list, whatever becomes of the work",
    async () => {
      const canaries = new Canaries();
      const password = canaries.plant("password", odd);
      const wrongPassword = canaries.plant("wrong password", odd);
      const identityToken = canaries.plant("identity token");
      const secret = canaries.plant("secretEnv", odd);
      const joinToken = canaries.plant("join token");
      const apiToken = canaries.plant("API token");
      const proxyPassword = canaries.plant("proxy password");

      await using things = new AsyncDisposableStack();
      const marker = join(mkdtempSync(join(tmpdir(), "gpunode-canary-marker-")), "marker");
      things.defer(() => rmSync(resolve(marker, ".."), { recursive: true }));
      writeFileSync(marker, "");
      const apiTokenFile = `${marker}-api-token`;
      writeFileSync(apiTokenFile, `${apiToken}\n`, { mode: 0o600 });
      const login = { username: "ann", password };
      const registry = things.use(await startRegistry({ auth: login }));
      const hostile = things.use(await startEchoingRegistry());
      const proxy = things.use(await startProxy());
      const coordinator = things.use(new CoordinatorProcess({ joinToken, apiTokenFile }));
      const url = await coordinator.url();
      const rig = things.use(
        new Rig({
          listen: "127.0.0.1:0",
          url: url.replace("http", "ws"),
          coordinator: `join_token = "${joinToken}", proxy = "http://lender:${proxyPassword}@127.0.0.1:${proxy.port}"`,
          more: `log = { level = "trace" }`,
          // As somebody may set it who keeps tokens out of files: the programs the daemon starts need it no more than others.
          env: { GPUNODE_COORDINATOR_JOIN_TOKEN: joinToken },
        }),
      );
      const image = registry.add("team/private:1", await smallImage());
      const client = new CoordinatorClient(url, { token: apiToken });

      rig.start();
      await patiently(async () => (await client.nodes()).find(({ connected, gpus }) => connected && gpus), 60_000);
      const secretEnv = { TOKEN: secret };
      const base = { image, registryAuth: login, secretEnv };
      const pull = (path: string, registryAuth: object) => ({
        image: `${hostile.address}/${path}/image:1`,
        registryAuth,
        secretEnv,
      });
      const wrong = { username: "ann", password: wrongPassword };
      const jobs = {
        good: { ...base, command: sh('test -n "$TOKEN" && echo done') },
        fails: { ...base, command: sh("exit 3") },
        "no-command": { ...base, command: ["/no/such/command"] },
        "no-workdir": { ...base, command: sh("true"), workdir: "/etc/passwd" },
        "no-user": { ...base, command: sh("true"), user: "nobody-here" },
        wrong: { ...base, registryAuth: wrong },
        body: pull("body", wrong),
        challenge: pull("challenge", wrong),
        status: pull("status", wrong),
        token: pull("body", { identityToken }),
        "token-status": pull("status", { identityToken }),
        preempted: {
          ...base,
          command: sh("trap 'exit 0' TERM; while :; do sleep 0.1; done"),
          stop: { graceSeconds: 5, checkpoint: { exec: ["/no/such/checkpoint"], timeoutSeconds: 5 } },
        },
        "killed-agent": { ...base, command: sh("sleep 8; echo survived"), gpus: { count: 1 } },
      };
      for (const [id, job] of Object.entries(jobs)) await client.submit({ id, ...job });
      await patiently(
        async () => ((await client.workload("preempted")).state === "running" ? true : undefined),
        60_000,
      );
      const living = await patiently(async () => {
        const view = await client.workload("killed-agent");
        const id = view.events.find(({ containerId }) => containerId !== undefined)?.containerId;
        return view.state === "running" && id !== undefined ? String(id) : undefined;
      }, 60_000);

      // While it runs: what other users of this machine see of our processes, and what the engine tells of the container.
      for (const { pid } of [rig, coordinator]) {
        expect(canaries.in(processTree(pid).commandLines)).toEqual([]);
      }
      const { Config, ...inspected } = await docker().getContainer(living).inspect();
      const { Env, ...config } = Config;
      expect(canaries.in(JSON.stringify([inspected, config]))).toEqual([]);
      // Here it has to be: whoever may ask the engine sees it (docs/security.md).
      expect(canaries.in(Env.join())).toEqual(["secretEnv"]);

      await client.preempt("preempted", { reason: "the owner is back" });
      await rig.end("SIGKILL");
      expect(canaries.filesIn(join(rig.dir, "state"))).toEqual([]);
      rig.start();
      const ids = Object.keys(jobs);
      for (const id of ids) {
        await client.waitForEnd(id, {
          intervalMs: 200,
          signal: AbortSignal.timeout(90_000),
          onChange: () => undefined,
        });
      }
      const states = Object.fromEntries((await client.workloads()).map(({ id, state }) => [id, state]));
      expect(states).toMatchObject({ good: "succeeded", preempted: "preempted", "killed-agent": "succeeded" });
      expect(ids.filter((id) => states[id] === "failed").sort()).toEqual(
        [
          "fails",
          "no-command",
          "no-workdir",
          "no-user",
          "wrong",
          "body",
          "challenge",
          "status",
          "token",
          "token-status",
        ].sort(),
      );
      // The secrets did travel: the registry and the proxy were sent them, and the refusals say where they were.
      expect(canaries.in(hostile.heard.join())).toEqual(expect.arrayContaining(["wrong password", "identity token"]));
      expect(canaries.in(proxy.heard.join())).toEqual(["proxy password"]);
      const refusal = (await client.workload("status")).events.at(-1);
      expect(String(refusal?.message)).toContain("[hidden]");

      const bundle = join(rig.dir, "bundle.tar.gz");
      expect(rig.gpunode("support-bundle", "--output", bundle)).toMatchObject({ status: 0 });
      expectClean(canaries, {
        "a support bundle": spawnSync("tar", ["-xzOf", bundle]).stdout.toString("latin1"),
        ...ownersView(rig),
        ...(await pageView(rig)),
        ...(await operatorsView(url, apiToken, ids)),
        "the daemon's log": rig.log,
        "the coordinator's output": coordinator.output,
        "gpunode logs": ids
          .map((id) => rig.gpunode("logs", id))
          .map(({ stdout, stderr }) => stdout + stderr)
          .join(),
      });
      // Of the daemon's processes only its own environment has what it was started with, which its user and root can read.
      const { environments } = processTree(rig.pid);
      expect(environments.split("\n").filter((each) => canaries.in(each).length > 0)).toHaveLength(1);
      expect(canaries.filesIn(coordinator.stateDir)).toEqual([]);
      // The engine keeps environments in its files, and registries' refusals in its log, for root alone (docs/security.md).
      const { DockerRootDir } = (await docker().info()) as { DockerRootDir: string };
      const enginesOwn = `${dirname(DockerRootDir)}/`;
      const written = canaries.filesIn(TEMPORARY, marker).filter((file) => !file.startsWith(enginesOwn));
      expect(written.filter((file) => file !== apiTokenFile)).toEqual([rig.config]);
    },
    PATIENCE_MS,
  );

  test(
    "are in no answer to a coordinator that sends broken frames or has images pulled ahead",
    async () => {
      const canaries = new Canaries();
      const password = canaries.plant("password", odd);
      const secret = canaries.plant("secretEnv", odd);
      const image = await pushImage("agent/secrets:1", await smallImage());
      await using hostile = await startEchoingRegistry();
      await using coordinator = await FakeCoordinator.start();
      await using rig = new Rig({
        url: coordinator.url,
        listen: "127.0.0.1:0",
        more: `log = { level = "trace" }`,
      });
      rig.start();
      const session = await coordinator.next(20_000);
      await session.start();
      const registryAuth = { username: "ann", password };
      const secretEnv = { TOKEN: secret };
      const answers: unknown[] = [];
      for (const how of ["body", "challenge", "status"]) {
        const prefetch = { type: "prefetch", image: `${hostile.address}/${how}/image:1`, registryAuth };
        answers.push(await session.command(prefetch));
      }
      const workload = { id: "w", generation: 1, image, registryAuth, secretEnv };
      const text = JSON.stringify({ type: "assign", id: "1", workload });
      // Each breaks off, or goes wrong, at the secret itself.
      const cut = text.indexOf(JSON.stringify(secret).slice(1, 8));
      for (const broken of [text.slice(0, cut + 12), text.replace('"TOKEN":"', '"TOKEN":'), `${text}${secret}`]) {
        session.send(broken);
        answers.push(await session.next("error"));
      }
      for (const changes of [
        { registryAuth: { username: "ann", password: [password] } },
        { registryAuth: password },
        { secretEnv: { TOKEN: { value: secret } } },
        { secretEnv: { TOKEN: `${secret}\0` } },
        { secretEnv: secret },
        { image: "no image at all", registryAuth, secretEnv },
        { gpus: { count: 9 } },
      ]) {
        answers.push(await session.command({ type: "assign", workload: { ...workload, ...changes } }));
      }
      expect(answers.every((answer) => (answer as { ok?: boolean }).ok !== true)).toBe(true);
      session.send({ type: "sync", workloads: [{ ...workload, registryAuth: password }] });
      await told(session, { workload: "w", state: "rejected" });
      // A secret may even be where the engine looks for something: its refusal then quotes it.
      const quoted = {
        ...workload,
        id: "quoted",
        workdir: "/w",
        secretEnv: { PATH: secret },
        command: ["nothing-there"],
      };
      session.send({ type: "sync", workloads: [quoted] });
      await told(session, { workload: "quoted", state: "failed" });
      expectClean(canaries, {
        "its answers": JSON.stringify(answers),
        "all frames": JSON.stringify(session.frames),
        "the daemon's log": rig.log,
        ...ownersView(rig),
        ...(await pageView(rig)),
      });
      expect(canaries.filesIn(join(rig.dir, "state"))).toEqual([]);
    },
    PATIENCE_MS,
  );
});
