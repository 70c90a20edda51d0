import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import Docker from "dockerode";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { engineAnswers, findEngine } from "../../src/demo/engine-api.ts";
import { BRIDGE_PREFIX, cgroupFolders, engineProcesses, mountsBelow } from "../../src/demo/engine-state.ts";
import { engineBridges } from "../../src/demo/engine-teardown.ts";
import { type PrivateEngine, startPrivateEngine } from "../../src/demo/private-engine.ts";
import { startRegistry } from "../../src/demo/registry.ts";
import { engineIsPrivate, engineSocket, haveEngine, smallImage } from "../support/engine.ts";

const packagesDir = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");
const log = () => undefined;

describe.runIf(engineIsPrivate)("a private engine", () => {
  let base = "";
  let dir = "";
  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), "gpunode-engine-"));
    dir = join(base, "e");
  });
  afterEach(() => rmSync(base, { recursive: true, force: true }));

  it("lives beside another one and leaves nothing behind", async () => {
    const engine = await startPrivateEngine({ dir, packagesDir, log });
    expect(engine.socket).not.toBe(engineSocket());
    const { subnet } = await runServer(engine, { network: true });
    expect(subnet.startsWith(engine.gateway.replace(/\d+$/, ""))).toBe(true);
    await engine.stop();
    await engine.stop();
    expectNothingLeft(engine);
  });

  it("leaves nothing behind after a crash of its dockerd either", async () => {
    const engine = await startPrivateEngine({ dir, packagesDir, log });
    await runServer(engine, { network: true });
    const own = shimSocketsOf(dir);
    expect(own.length).toBeGreaterThan(0);
    await engine.kill();
    expect(engine.pid).toBeUndefined();
    await engine.stop();
    expectNothingLeft(engine);
    expect(shimSockets().filter((socket) => own.includes(socket))).toEqual([]);
  });

  it("comes back after a crash with its containers running (live restore), also from a long folder", async () => {
    dir = join(dir, "x".repeat(100));
    await using engine = await startPrivateEngine({ dir, packagesDir, log, liveRestore: true });
    const { container, pid } = await runServer(engine, { network: false });
    const first = engine.pid;
    await engine.kill();
    expect(await engineAnswers(engine.socket, 500)).toBe(false);
    await engine.restart();
    expect(engine.pid).not.toBe(first);
    const { State } = await container.inspect();
    expect(State).toMatchObject({ Running: true, Pid: pid });
  });

  it("removes what a killed process left", async () => {
    const script = `
      import { startPrivateEngine } from ${JSON.stringify(resolve(import.meta.dirname, "../../src/demo/private-engine.ts"))};
      await startPrivateEngine({ dir: process.argv[1], packagesDir: process.argv[2], log() {} });
      process.kill(process.pid, "SIGKILL");`;
    const owner = spawn(process.execPath, ["--input-type=module", "-e", script, dir, packagesDir], {
      stdio: "inherit",
    });
    expect((await once(owner, "exit"))[1]).toBe("SIGKILL");
    expect(engineProcesses(dir).length).toBeGreaterThan(0);
    const left = engineBridges().find((bridge) => bridge.dir === dir);
    expect(left).toBeDefined();

    const lines: string[] = [];
    const other = join(dir, "../other");
    const engine = await startPrivateEngine({ dir: other, packagesDir, log: (line) => lines.push(line) });
    expect(lines.join("\n")).toContain(dir);
    expect(engineProcesses(dir)).toEqual([]);
    expect(mountsBelow(dir)).toEqual([]);
    expect(existsSync(dir)).toBe(false);
    expect(engineBridges().filter((bridge) => bridge.dir === dir)).toEqual([]);
    await engine.stop();
    expectNothingLeft(engine);
  });

  it("refuses a folder that holds something", async () => {
    await expect(startPrivateEngine({ dir: packagesDir, packagesDir, log })).rejects.toThrow(/not empty/);
  });

  it("says why dockerd does not come up, and leaves nothing behind", async () => {
    const daemonConfig = { "storage-driver": "no-such-driver" };
    await expect(startPrivateEngine({ dir, packagesDir, log, daemonConfig })).rejects.toThrow(/driver not supported/);
    expect(existsSync(dir)).toBe(false);
  });
});

describe.runIf(haveEngine)("findEngine", () => {
  it("finds the engine DOCKER_HOST names, and none where nothing answers", async () => {
    const socket = engineSocket();
    expect(await findEngine({ DOCKER_HOST: `unix://${socket}` })).toEqual({ socket });
    expect(await findEngine({ DOCKER_HOST: "unix:///nowhere/docker.sock" })).toBeUndefined();
    expect(await findEngine({ DOCKER_HOST: "tcp://127.0.0.1:2375" })).toBeUndefined();
  });
});

async function runServer(engine: PrivateEngine, options: { network: boolean }) {
  const docker = new Docker({ socketPath: engine.socket });
  await using registry = await startRegistry();
  const reference = registry.add("demo/sleep", await smallImage());
  const stream = await docker.pull(reference);
  await once(stream.resume(), "end");
  if (options.network) await docker.createNetwork({ Name: "apart" });
  const container = await docker.createContainer({
    Image: reference,
    Cmd: ["sleep", "1000"],
    HostConfig: { NetworkMode: options.network ? "apart" : "bridge" },
  });
  await container.start();
  const { State, NetworkSettings } = await container.inspect();
  const [attached] = Object.values(NetworkSettings.Networks);
  return { container, pid: State.Pid, subnet: attached?.IPAddress ?? "" };
}

function expectNothingLeft(engine: Pick<PrivateEngine, "dir" | "bridge" | "gateway">): void {
  expect(engineProcesses(engine.dir)).toEqual([]);
  const commands = execFileSync("ps", ["-eo", "args"], { encoding: "utf8" }).split("\n");
  expect(commands.filter((line) => line.includes(engine.dir))).toEqual([]);
  expect(mountsBelow(engine.dir)).toEqual([]);
  expect(existsSync(engine.dir)).toBe(false);
  expect(existsSync(`/sys/class/net/${engine.bridge}`)).toBe(false);
  // The bridges of its other networks have addresses of the same /24.
  const addresses = execFileSync("ip", ["-o", "-4", "addr"], { encoding: "utf8" }).split("\n");
  expect(addresses.filter((line) => line.includes(` ${engine.gateway.replace(/\d+$/, "")}`))).toEqual([]);
  const number = Number(engine.bridge.slice(BRIDGE_PREFIX.length));
  expect(cgroupFolders(number).filter((folder) => existsSync(folder))).toEqual([]);
}

/** Sockets of all containerd shims of this machine that lie where containerd puts them, outside any engine's folder. */
function shimSockets(): string[] {
  return existsSync("/run/containerd/s") ? readdirSync("/run/containerd/s") : [];
}

/** Names of the sockets that this engine's shims listen on, by the note beside each bundle; other engines have their own. */
function shimSocketsOf(engineDir: string): string[] {
  const notes = execFileSync("find", [engineDir, "-name", "address", "-type", "f"]).toString().split("\n");
  return notes.flatMap((note) => (note === "" ? [] : basename(readFileSync(note, "utf8").trim())));
}
