import { spawnSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { answered, printed } from "../../src/cli/support/external.ts";
import { Workload } from "../../src/protocol/workload.ts";
import { openStore } from "../../src/store/store.ts";
import { newRecord, recordKey } from "../../src/workload/record.ts";
import { Canaries } from "../agent/canaries.ts";
import { Rig } from "../agent/rig.ts";
import { gpunode, node, outcome, root, scratch, start } from "./gpunode.ts";

const never = new AbortController().signal;

/** Unpacks a bundle; by file name, without the folder all of it lies in. */
function unpacked(archive: string): Record<string, string> {
  const dir = scratch();
  expect(spawnSync("tar", ["-xzf", archive, "-C", dir]).status).toBe(0);
  const [folder = ""] = readdirSync(dir);
  return Object.fromEntries(
    readdirSync(join(dir, folder)).map((name) => [name, readFileSync(join(dir, folder, name), "utf8")]),
  );
}

/** Programs that stand in for those of a machine with systemd. */
function programs(scripts: Record<string, string>): string {
  const dir = scratch();
  for (const [name, script] of Object.entries(scripts)) {
    writeFileSync(join(dir, name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(dir, name), 0o755);
  }
  return dir;
}

async function listening(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
}

/** A machine with secrets in every place that a bundle looks at. */
async function machine() {
  const canaries = new Canaries();
  const dir = scratch();
  const [stateDir, file] = [join(dir, "state"), join(dir, "config.toml")];
  mkdirSync(stateDir);
  const joinToken = canaries.plant("join token");
  const proxyPassword = canaries.plant("proxy password");
  writeFileSync(join(dir, "join-token"), `${joinToken}\n`, { mode: 0o600 });
  const key = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  writeFileSync(join(stateDir, "identity.pem"), key, { mode: 0o600 });
  writeFileSync(
    file,
    `name = "rig"
state_dir = "${stateDir}"
run_dir = "${join(dir, "run")}"
[coordinator]
url = "wss://coordinator.example"
join_token_file = "${join(dir, "join-token")}"
proxy = "http://lender:${proxyPassword}@proxy.example:3128"
[nvidia]
smi = "${join(root, "bin/nvidia-smi-sim.js")}"
simulated = true
[docker]
socket = "${join(dir, "docker.sock")}"
`,
  );
  const variable = canaries.plant("variable of a workload");
  const argument = canaries.plant("argument of a workload");
  {
    await using store = openStore({ path: join(stateDir, "gpunode.db") });
    const env = { KEY: variable, MODE: "production" };
    const workload = Workload.parse({
      id: "train",
      generation: 1,
      image: "a/b:1",
      env,
      command: ["sh", "-c", argument],
    });
    const record = newRecord(workload, [], 0);
    store.commit({ put: [{ key: recordKey(record), body: record }], remove: [], events: [] });
    store.append([{ kind: "node", state: "started", reason: "gpunode 0.1.0" }]);
    store.set("owner", "drained");
  }
  const unitToken = canaries.plant("token of the unit");
  const containerWord = canaries.plant("command line of a container");
  const dockerProxy = canaries.plant("proxy of docker");
  const engine = createServer((request, response) => {
    const answers: Record<string, unknown> = {
      "/info": { Name: "rig", HttpProxy: `http://u:${dockerProxy}@p:1` },
      "/version": { Version: "27.3.1" },
    };
    const containers = [
      {
        Id: "c1",
        Names: ["/gpunode-x"],
        State: "running",
        Command: containerWord,
        Labels: { "org.gpunode.workload": "train", other: containerWord },
      },
    ];
    const path = request.url?.split("?")[0] ?? "";
    response.end(JSON.stringify(answers[path] ?? containers));
  });
  await listening(engine, join(dir, "docker.sock"));
  const bearer = canaries.plant("bearer in the journal");
  const path = programs({
    journalctl: `case "$*" in
      *--dmesg*) echo "kernel: NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus"; echo "kernel: something else ${canaries.plant("kernel line that is not about GPUs")}";;
      *) echo "rig gpunode[1]: session with ${joinToken} and ${Buffer.from(`lender:${proxyPassword}`).toString("base64")}"
         echo "rig gpunode[1]: variable ${variable}, unit ${unitToken}, authorization: Bearer ${bearer}"
         echo "rig gpunode[1]: ${key.split("\n")[1]}";;
    esac`,
    systemctl: `case "$*" in
      *"--property=Environment --value"*) echo "GPUNODE_COORDINATOR_JOIN_TOKEN=${unitToken} MODE=x";;
      cat*) echo "# /etc/systemd/system/gpunode.service"; echo "Environment=\\"A=${canaries.plant("variable of the unit")}\\" GPUNODE_COORDINATOR_JOIN_TOKEN=${unitToken}"; echo "User=gpunode";;
      show*) echo "Environment=A=b C=${canaries.plant("other variable of the unit")}"; echo "ActiveState=active";;
      *) echo "gpunode.service - active, token ${unitToken}"; exit 3;;
    esac`,
  });
  mkdirSync(join(dir, "tmp"));
  const env = {
    PATH: `${path}:${process.env.PATH}`,
    TMPDIR: join(dir, "tmp"),
    GPUNODE_SIM_SCENARIO: "rtx4090x2",
    HTTPS_PROXY: `http://u:${canaries.plant("proxy of the shell")}@p:1`,
  };
  return { canaries, dir, file, env, key };
}

describe("support-bundle, with the daemon down", () => {
  it("has all that helps and no secret, says what it hid, and is readable by its owner alone", async () => {
    const { canaries, dir, file, env, key } = await machine();
    const output = join(dir, "bundle.tar.gz");
    const { code, out, err } = await gpunode(["support-bundle", "--config", file, "--output", output], env);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect((statSync(output).mode & 0o777).toString(8)).toBe("600");
    const files = unpacked(output);
    expect(canaries.in(JSON.stringify(files) + out)).toEqual([]);
    expect(JSON.stringify(files) + out).not.toContain(key.split("\n")[1]);

    const manifest = JSON.parse(files["manifest.json"] ?? "") as {
      files: { file: string; hidden: Record<string, number>; problem?: string; bytes: number }[];
    };
    const told = Object.fromEntries(manifest.files.map((each) => [each.file, each]));
    expect(told["status.json"]?.problem).toMatch(/^the daemon is not running/);
    // A later build has one; then what it says is there.
    expect(told["doctor.json"]?.problem === "this gpunode has no doctor").toBe(files["doctor.json"] === undefined);
    expect(told["journal.txt"]?.hidden).toMatchObject({
      "join token": 1,
      "password of the proxy": 1,
      "environment variable of a workload": 1,
      "secret of the environment": 1,
      "private key": 1,
    });
    expect(told["workloads.json"]?.hidden).toMatchObject({
      "environment variable of a workload": 2,
      "argument of a workload's command": 2,
    });
    expect(told["service-unit.txt"]?.hidden).toMatchObject({ "variable of the service": 2 });
    // Every file is in the manifest with its size, and everything in the manifest that has a size is there.
    const sizes = Object.fromEntries(Object.entries(files).map(([name, text]) => [name, Buffer.byteLength(text)]));
    delete sizes["manifest.json"];
    expect(
      Object.fromEntries(manifest.files.filter(({ bytes }) => bytes > 0).map((each) => [each.file, each.bytes])),
    ).toEqual(sizes);

    expect(JSON.parse(files["config.json"] ?? "").settings).toContainEqual({
      key: "coordinator.proxy",
      value: "[hidden]",
      source: file,
    });
    expect(JSON.parse(files["gpus.json"] ?? "")).toHaveLength(2);
    expect(files["nvidia-smi.xml"]).toMatch(/^<\?xml[\s\S]*<\/nvidia_smi_log>/);
    expect(files["nvidia-smi-topology.txt"]).toContain("GPU0");
    expect(JSON.parse(files["docker-info.json"] ?? "")).toEqual({ Name: "rig", HttpProxy: "http://[hidden]@p:1" });
    expect(JSON.parse(files["docker-containers.json"] ?? "")).toEqual([
      { Id: "c1", Names: ["/gpunode-x"], State: "running", Labels: { "org.gpunode.workload": "train" } },
    ]);
    const workloads = JSON.parse(files["workloads.json"] ?? "");
    expect(workloads).toMatchObject({
      settings: { owner: "drained" },
      records: [{ key: "train#1", body: { state: "accepted" } }],
    });
    expect(workloads.records[0].body.spec).toMatchObject({
      env: { KEY: "[hidden]", MODE: "[hidden]" },
      command: ["sh", "[hidden]", "[hidden]"],
    });
    expect(JSON.parse(files["events.json"] ?? "").events).toMatchObject([
      { seq: 1, body: { kind: "node", state: "started" } },
    ]);
    expect(files["kernel.txt"]).toBe("kernel: NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus\n");
    expect(files["service-unit.txt"]).toContain(
      'Environment="A=[hidden]" GPUNODE_COORDINATOR_JOIN_TOKEN=[hidden]\nUser=gpunode',
    );
    expect(files["service-status.txt"]).toContain("gpunode.service - active, token [hidden]");
    expect(told["service-status.txt"]?.problem).toBe("systemctl ended with exit code 3");
    expect(JSON.parse(files["host.json"] ?? "")).toMatchObject({
      cpu: { count: expect.any(Number) },
      os: expect.anything(),
    });
    expect(files["state-dir.txt"]).toMatch(/^0600 \d+:\d+ +\d+ \S+ identity\.pem$/m);
    expect(files["disks.txt"]).toMatch(/Filesystem/);
    // The person at the terminal is told the same.
    expect(out).toMatch(/^journal\.txt +\d+ B +.*1 × join token/m);
    expect(out).toContain(`Written: ${output} (`);
    // Nothing of what was looked into is left lying about.
    expect(readdirSync(join(dir, "tmp"))).toEqual([]);
  });

  it("does not take the place of a file that is there", async () => {
    const { dir, file, env } = await machine();
    const output = join(dir, "bundle.tar.gz");
    writeFileSync(output, "mine");
    const { code, err } = await gpunode(["support-bundle", "--config", file, "--output", output], env);
    expect(code).toBe(1);
    expect(err).toContain(`${output} is there already: give another name with --output, or remove it`);
    expect(readFileSync(output, "utf8")).toBe("mine");
    const nowhere = await gpunode(["support-bundle", "--config", file, "--output", "/nonexistent/x.tar.gz"], env);
    expect(nowhere.err).toContain("there is no folder /nonexistent");
  });

  it("is made where nothing is there to be collected, and where the configuration is wrong", async () => {
    const dir = scratch();
    const file = join(dir, "config.toml");
    writeFileSync(file, "[policy]\nmax_worloads = 3\n");
    const output = join(dir, "bundle.tar.gz");
    const { code, err } = await gpunode(["support-bundle", "--config", file, "--output", output], {
      PATH: "/nonexistent",
    });
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const { files } = JSON.parse(unpacked(output)["manifest.json"] ?? "") as {
      files: { file: string; problem?: string }[];
    };
    const problems = Object.fromEntries(files.map(({ file: name, problem }) => [name, problem]));
    expect(problems["config.json"]).toContain('unknown key "policy.max_worloads"');
    expect(problems["journal.txt"]).toBe("there is no journalctl here");
  });

  it("ends with nothing written, and no program of it left, when it is interrupted", async () => {
    const { dir, file, env } = await machine();
    const marker = join(dir, "began");
    const path = programs({ journalctl: `touch ${marker}; exec sleep 8639923`, systemctl: "exit 1" });
    const output = join(dir, "bundle.tar.gz");
    const args = ["src/cli/main.ts", "support-bundle", "--config", file, "--output", output];
    const child = start(node, args, { ...env, PATH: `${path}:${process.env.PATH}` });
    const ended = outcome(child);
    while (!readdirSync(dir).includes("began")) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill("SIGINT");
    expect(await ended).toMatchObject({ code: 130, err: "gpunode: interrupted; nothing was written\n" });
    expect(readdirSync(dir).filter((name) => name.includes("bundle"))).toEqual([]);
    const left = spawnSync("sh", ["-c", `grep -lsz '^8639923$' /proc/[0-9]*/cmdline | wc -l`], { encoding: "utf8" });
    expect(Number(left.stdout)).toBe(0);
  });
});

it("support-bundle looks into the state of a daemon that runs, and leaves it alone", async () => {
  await using rig = new Rig({ socket: "/nonexistent/docker.sock" });
  rig.start();
  const { node: shown } = await rig.until(({ node: { state } }) => state === "available");
  const output = join(rig.dir, "bundle.tar.gz");
  const { status, stderr } = rig.gpunode("support-bundle", "--output", output);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  const files = unpacked(output);
  expect(JSON.parse(files["status.json"] ?? "")).toMatchObject({ node: { id: shown.id, pid: shown.pid } });
  expect(JSON.parse(files["events.json"] ?? "").events[0]).toMatchObject({
    seq: 1,
    body: { kind: "node", state: "started" },
  });
  expect(rig.status().node.pid).toBe(shown.pid);
});

describe("what is asked of others", () => {
  it("is cut where it takes too long, and nothing of it is left running", async () => {
    const dir = programs({ hangs: 'echo one; printf "half a secr"; sleep 300 & wait' });
    const said = await printed(join(dir, "hangs"), [], { signal: never, timeoutMs: 300 });
    expect(said).toEqual({ text: "one\n", problem: "it was cut: no end within 0.3 s" });
  });

  it("is cut where it is too much, at the end of a line", async () => {
    const said = await printed("yes", ["twelve bytes"], { signal: never, maxBytes: 1024 * 1024 });
    expect(said.problem).toBe("it was cut: more than 1 MiB");
    expect(said.text.length).toBeLessThanOrEqual(1024 * 1024);
    expect(said.text.endsWith("twelve bytes\n")).toBe(true);
  });

  it("ends with the signal", async () => {
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 50);
    expect((await printed("sleep", ["300"], { signal: stop.signal })).problem).toBe("it was cut: interrupted");
  });

  it("of a service on a socket is bounded as well", async () => {
    const dir = scratch();
    const endless = createServer((_request, response) => {
      response.write("x".repeat(200_000));
    });
    await listening(endless, join(dir, "endless"));
    const { problem } = await answered(join(dir, "endless"), "/", { signal: never, maxBytes: 1024 });
    expect(problem).toMatch(/more than/);
    const mute = createTcpServer((socket) => socket.resume());
    await new Promise<void>((resolve) => mute.listen(join(dir, "mute"), resolve));
    onTestFinished(() => new Promise<void>((resolve) => void mute.close(() => resolve())));
    expect((await answered(join(dir, "mute"), "/", { signal: never, timeoutMs: 100 })).problem).toBe(
      "no answer within 0.1 s",
    );
    const refusing = createServer((_request, response) => response.writeHead(500).end("secret"));
    await listening(refusing, join(dir, "refusing"));
    expect(await answered(join(dir, "refusing"), "/info", { signal: never })).toEqual({
      text: "",
      problem: "/info was answered with HTTP 500",
    });
  });
});
