import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type PrivateEngine, startPrivateEngine } from "../../src/demo/private-engine.ts";
import { type Registry, startRegistry } from "../../src/demo/registry.ts";
import { engineIsPrivate, smallImage } from "../support/engine.ts";
import {
  neverAborted,
  openDescriptors,
  openEngine,
  outputOf,
  pullOptions,
  refusal,
  removeAll,
  runToEnd,
  settledDescriptors,
  specFor,
  until,
} from "./harness.ts";

const PACKAGES_DIR = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");
const MIB = 1024 * 1024;

function ownDockerd(dir: string, options: { liveRestore?: boolean } = {}): Promise<PrivateEngine> {
  return startPrivateEngine({
    dir,
    packagesDir: PACKAGES_DIR,
    log: () => undefined,
    // A pull that breaks off is tried five times over 75 s otherwise.
    daemonConfig: { "max-download-attempts": 1 },
    ...options,
  });
}

describe.runIf(engineIsPrivate)("when dockerd dies", () => {
  let dir: string;
  let dockerd: PrivateEngine;
  let registry: Registry;
  let engine: ReturnType<typeof openEngine>;
  let image: string;

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "gpunode-crash-"));
    dockerd = await ownDockerd(join(dir, "e"));
    registry = await startRegistry();
    engine = openEngine({ socketPath: dockerd.socket, answerMs: 1_500, relistMs: 500 });
    image = (await engine.pull(registry.add("crash/sh:1", await smallImage()), pullOptions())).id;
  });
  afterEach(() => removeAll(engine));
  afterAll(async () => {
    await engine[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
    await dockerd.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  it("wait, output, commands and pulls end at once as engine_unavailable; the truth is there after its return", async () => {
    const before = await settledDescriptors();
    const id = await engine.create(specFor(engine, image, "echo up; sleep 300", { stopSignal: "SIGKILL" }));
    await engine.start(id);
    await until(async () => (await outputOf(engine, id)).includes("up"));
    const reference = registry.add("crash/slow:1", await smallImage({ paddingBytes: 4 * MIB }), {
      bytesPerSecond: 200_000,
    });
    const signal = neverAborted();
    const under = [
      engine.wait(id, signal),
      readAll(engine.logs(id, { follow: true, signal })),
      engine.exec(id, ["sleep", "300"], { timeoutMs: 300_000, signal }),
      engine.pull(reference, pullOptions()),
    ].map(refusal);
    await sleep(500);
    await dockerd.kill();
    const died = performance.now();
    for (const ended of await Promise.all(under)) expect(ended).toMatchObject({ code: "engine_unavailable" });
    expect(performance.now() - died).toBeLessThan(2_000);
    expect(await engine.info()).toEqual({ kind: "docker", available: false });
    expect((await refusal(engine.inspect(id))).message).toContain(dockerd.socket);
    expect(await refusal(engine.wait(id, signal))).toMatchObject({ code: "engine_unavailable" });

    await dockerd.restart();
    expect(await engine.info()).toMatchObject({ available: true, storageDriver: expect.any(String) });
    // Without live-restore dockerd ends what it finds still running.
    expect(await engine.wait(id, AbortSignal.timeout(20_000))).toMatchObject({ status: "exited", exitCode: 137 });
    await until(() => openDescriptors() <= before);
  }, 60_000);

  it("a stop goes on when it is back", async () => {
    const command = "trap '' TERM; echo up; while :; do sleep 0.1; done";
    const id = await engine.create(specFor(engine, image, command, { stopSignal: "SIGKILL" }));
    await engine.start(id);
    await until(async () => (await outputOf(engine, id)).includes("up"));
    const stopping = engine.stop(id, { signal: "SIGTERM", graceSeconds: 3 });
    await sleep(300);
    await dockerd.kill();
    await sleep(300);
    await dockerd.restart();
    await stopping;
    expect(await engine.inspect(id)).toMatchObject({ status: "exited", exitCode: 137 });
  }, 60_000);

  it("or only hangs, nothing hangs with it", async () => {
    const id = await engine.create(specFor(engine, image, "sleep 300"));
    await engine.start(id);
    const waiting = refusal(engine.wait(id, neverAborted()));
    await sleep(300);
    process.kill(dockerd.pid ?? 0, "SIGSTOP");
    // Each of its threads stops when it next gets a turn; one that still runs may answer.
    await sleep(300);
    try {
      const began = performance.now();
      expect((await refusal(engine.inspect(id))).message).toContain("no answer within 1.5 s");
      expect(await waiting).toMatchObject({ code: "engine_unavailable" });
      expect(performance.now() - began).toBeLessThan(6_000);
    } finally {
      process.kill(dockerd.pid ?? 0, "SIGCONT");
    }
  });

  it("a layer that broke off in the middle is no success", async () => {
    const broken = registry.add("crash/broken:1", await smallImage({ paddingBytes: 2 * MIB }), {
      resetAfterBytes: 500_000,
    });
    expect(await refusal(engine.pull(broken, pullOptions()))).toMatchObject({
      code: "pull_failed",
      reason: "pull_broken_off",
    });
    expect(await engine.image(broken)).toBeUndefined();
  });
});

describe.runIf(engineIsPrivate)("with live-restore", () => {
  it("a container that ends while dockerd is down keeps its exit code, and its end is found without an event", async () => {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-live-"));
    try {
      await using dockerd = await ownDockerd(join(dir, "e"), { liveRestore: true });
      await using registry = await startRegistry();
      await using engine = openEngine({ socketPath: dockerd.socket });
      const { id: image } = await engine.pull(registry.add("crash/sh:1", await smallImage()), pullOptions());
      const ending = await engine.create(specFor(engine, image, "sleep 2; exit 42"));
      const lasting = await engine.create(specFor(engine, image, "sleep 300"));
      await engine.start(ending);
      await engine.start(lasting);
      const pid = (await engine.inspect(lasting))?.pid;
      const waiting = refusal(engine.wait(ending, neverAborted()));
      await sleep(200);
      await dockerd.kill();
      expect(await waiting).toMatchObject({ code: "engine_unavailable" });
      await sleep(2_500);
      await dockerd.restart();
      expect(await engine.wait(ending, AbortSignal.timeout(10_000))).toMatchObject({ status: "exited", exitCode: 42 });
      expect(await engine.inspect(lasting)).toMatchObject({ status: "running", pid });
      await removeAll(engine);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }, 60_000);
});

describe.runIf(engineIsPrivate && canLoopMount())("on a full disk", () => {
  it("pulls and containers fail as insufficient_disk", async () => {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-disk-"));
    const mount = join(dir, "mnt");
    makeSmallDisk(dir, mount, 160);
    try {
      await using dockerd = await ownDockerd(join(mount, "e"));
      await using registry = await startRegistry();
      await using engine = openEngine({ socketPath: dockerd.socket });
      const small = await engine.pull(registry.add("disk/sh:1", await smallImage()), pullOptions());
      const big = registry.add("disk/big:1", await smallImage({ paddingBytes: 200 * MIB }));
      const refused = await refusal(engine.pull(big, pullOptions()));
      expect(refused).toMatchObject({ code: "insufficient_disk", reason: "disk_full" });
      expect(refused.message).toContain("no space left on device");
      expect(await engine.image(big)).toBeUndefined();
      // The engine has cleared away what came of it: what is small still runs.
      const { state } = await runToEnd(engine, specFor(engine, small.id, "exit 5"));
      expect(state.exitCode).toBe(5);
      await removeAll(engine);
    } finally {
      execFileSync("umount", [mount]);
      rmSync(dir, { recursive: true, force: true });
    }
  }, 60_000);
});

async function readAll(chunks: AsyncIterable<unknown>): Promise<void> {
  for await (const chunk of chunks) void chunk;
}

function makeSmallDisk(dir: string, mount: string, sizeMiB: number): void {
  mkdirSync(mount);
  execFileSync("truncate", ["-s", `${sizeMiB}M`, join(dir, "disk")]);
  execFileSync("mkfs.ext4", ["-q", "-F", join(dir, "disk")]);
  execFileSync("mount", ["-o", "loop", join(dir, "disk"), mount]);
}

function canLoopMount(): boolean {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-loop-"));
  try {
    makeSmallDisk(dir, join(dir, "mnt"), 4);
    execFileSync("umount", [join(dir, "mnt")]);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
