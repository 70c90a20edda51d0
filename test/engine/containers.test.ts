import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { docker, engineIsPrivate, haveEngine } from "../support/engine.ts";
import {
  neverAborted,
  openDescriptors,
  openEngine,
  outputOf,
  pullSmallImage,
  refusal,
  removeAll,
  runToEnd,
  settledDescriptors,
  specFor,
  until,
} from "./harness.ts";

describe.runIf(haveEngine)("containers", () => {
  let engine: ReturnType<typeof openEngine>;
  let image: string;

  beforeAll(async () => {
    engine = openEngine();
    image = await pullSmallImage(engine);
  });
  afterEach(() => removeAll(engine));
  afterAll(() => engine[Symbol.asyncDispose]());

  it("run to their end with their exit code, output and times", async () => {
    const { state, output } = await runToEnd(engine, specFor(engine, image, "echo out; echo err >&2; exit 7"));
    expect(state).toMatchObject({ status: "exited", exitCode: 7, oomKilled: false, pid: 0, error: "", gpus: [] });
    // The engine notes the start of a process after it has started it: one that ends at once may have ended "before".
    expect(Date.parse(state.finishedAt ?? "")).toBeGreaterThanOrEqual(Date.parse(state.startedAt ?? "") - 50);
    expect(output.split("\n").sort()).toEqual(["", "err", "out"]);
  });

  it("are told as created before they were started, without times", async () => {
    const id = await engine.create(specFor(engine, image, "true"));
    const state = await engine.inspect(id);
    expect(state).toMatchObject({ id, status: "created", pid: 0 });
    expect(state).not.toHaveProperty("startedAt");
  });

  it("see environment, working directory and user as asked", async () => {
    const command = 'echo "$A|$PWD|$(id -u):$(id -g)"';
    const spec = specFor(engine, image, command, { env: { A: "b=c d" }, workdir: "/tmp", user: "1000:1001" });
    const { output } = await runToEnd(engine, spec);
    expect(output).toBe("b=c d|/tmp|1000:1001\n");
  });

  it("are held to their limits, read back from inside and from the engine", async () => {
    const read = [
      "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max",
      "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max",
      "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max",
      "grep -c ' /dev/shm .*size=32768k' /proc/mounts",
    ].join("; ");
    const spec = specFor(engine, image, read, { memoryMiB: 64, cpus: 0.5, shmMiB: 32, pids: 50 });
    const { id, output } = await runToEnd(engine, spec);
    expect(output).toBe(`${64 * 1024 * 1024}\n50\n50000\n1\n`);
    const { HostConfig } = await docker().getContainer(id).inspect();
    expect(HostConfig).toMatchObject({
      Memory: 64 * 1024 * 1024,
      NanoCpus: 5e8,
      PidsLimit: 50,
      ShmSize: 32 * 1024 * 1024,
    });
  });

  it("have no privilege: few capabilities, none to gain, no host path or namespace", async () => {
    const read = "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status";
    const { id, output } = await runToEnd(engine, specFor(engine, image, read));
    // Bits 0, 1, 3, 4, 5, 6, 7 and 10 of capabilities(7).
    const mask = "00000000000004fb";
    expect(output).toBe(`CapEff:\t${mask}\nCapBnd:\t${mask}\nNoNewPrivs:\t1\n`);
    const { HostConfig } = await docker().getContainer(id).inspect();
    expect(HostConfig).toMatchObject({ Privileged: false, AutoRemove: false, RestartPolicy: { Name: "no" } });
    expect(HostConfig.LogConfig).toMatchObject({ Type: "json-file", Config: { "max-size": "20m", "max-file": "3" } });
    expect(HostConfig.Binds ?? []).toEqual([]);
    expect([HostConfig.PidMode, HostConfig.NetworkMode]).toEqual(["", "bridge"]);
  });

  it("publish their ports on the given address alone", async () => {
    const serve = "mkdir /www; echo hello >/www/index.html; exec httpd -f -p 8080 -h /www";
    const ports = [{ container: 8080, host: await freePort() }];
    const id = await engine.create(specFor(engine, image, serve, { ports }));
    await engine.start(id);
    await until(async () => (await fetchText(`http://127.0.0.1:${ports[0]?.host}/`)) === "hello\n");
  });

  it("keep their caches between workloads, in labelled volumes", async () => {
    const volumes = [{ name: `gpunode-cache-${engine.nodeId}-models`, path: "/models" }];
    await runToEnd(engine, specFor(engine, image, "echo weights >/models/a", { volumes }));
    await removeAll(engine);
    const { output } = await runToEnd(engine, specFor(engine, image, "cat /models/a", { volumes }));
    expect(output).toBe("weights\n");
    const volume = docker().getVolume(volumes[0]?.name ?? "");
    expect((await volume.inspect()).Labels).toEqual({ "org.gpunode.node": engine.nodeId });
    await removeAll(engine);
    await volume.remove();
  });

  it.runIf(engineIsPrivate)("get exactly the GPUs of their spec, whatever the environment asks for", async () => {
    const gpus = ["GPU-11111111-2222-3333-4444-555555555555", "MIG-66666666-7777-8888-9999-000000000000"];
    const env = { NVIDIA_VISIBLE_DEVICES: "all", NVIDIA_MIG_CONFIG_DEVICES: "all", OTHER: "kept" };
    const { state, output } = await runToEnd(engine, specFor(engine, image, "env", { gpus, env }));
    expect(state.gpus).toEqual(gpus);
    const lines = output.split("\n");
    const visible = lines.filter((line) => line.startsWith("NVIDIA_VISIBLE_DEVICES="));
    expect(new Set(visible)).toEqual(new Set([`NVIDIA_VISIBLE_DEVICES=${gpus.join(",")}`]));
    expect(lines.filter((line) => line.includes("MIG_CONFIG"))).toEqual([]);
    expect(lines).toContain("OTHER=kept");
  });

  it("without a GPU are told to see none, also where the image says all", async () => {
    const { output } = await runToEnd(engine, specFor(engine, image, "echo $NVIDIA_VISIBLE_DEVICES"));
    expect(output).toBe("void\n");
  });

  it("over their memory limit end as killed for memory", async () => {
    const command = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    const { state } = await runToEnd(engine, specFor(engine, image, command, { memoryMiB: 16 }));
    expect(state).toMatchObject({ oomKilled: true, exitCode: 137 });
  });

  it("with a command that is not in the image fail in words, at the start or with 127", async () => {
    const spec = specFor(engine, image, "", { entrypoint: ["/no/such/program"], command: [] });
    const id = await engine.create(spec);
    // Under an init process it is that which finds no command, and says so with its exit code.
    const { HostConfig } = await docker().getContainer(id).inspect();
    if (HostConfig.Init) {
      await engine.start(id);
      expect(await engine.wait(id, neverAborted())).toMatchObject({ exitCode: 127 });
    } else {
      expect(await refusal(engine.start(id))).toMatchObject({ code: "invalid_spec", reason: "command_not_found" });
    }
  });

  it("with an unknown user, image or impossible limit are refused as a bad spec", async () => {
    const stranger = await engine.create(specFor(engine, image, "true", { user: "nobodyhere" }));
    expect(await refusal(engine.start(stranger))).toMatchObject({ code: "invalid_spec", reason: "no_such_user" });
    const gone = specFor(engine, `sha256:${"0".repeat(64)}`, "true");
    expect(await refusal(engine.create(gone))).toMatchObject({ code: "pull_failed", reason: "no_such_image" });
    const many = specFor(engine, image, "true", { cpus: 4000 });
    expect(await refusal(engine.create(many))).toMatchObject({ code: "invalid_spec", reason: "refused_by_engine" });
    const runtime = specFor(engine, image, "true", { runtime: "nonesuch" });
    expect(await refusal(engine.create(runtime))).toMatchObject({ code: "unsupported", reason: "unknown_runtime" });
  });

  it("with a host port that is taken fail saying so, and stay to be removed", async () => {
    const host = await freePort();
    const first = await engine.create(specFor(engine, image, "sleep 60", { ports: [{ container: 80, host }] }));
    await engine.start(first);
    const second = await engine.create(specFor(engine, image, "sleep 60", { ports: [{ container: 80, host }] }));
    expect(await refusal(engine.start(second))).toMatchObject({ reason: "port_taken" });
    expect(await engine.inspect(second)).toMatchObject({ status: "created" });
  });

  it("are created once for a name: the second create finds the first", async () => {
    const spec = specFor(engine, image, "true");
    const [first, second] = [await engine.create(spec), await engine.create(spec)];
    expect(second).toBe(first);
    const other = { ...spec, labels: { ...spec.labels, "org.gpunode.generation": "2" } };
    const refused = await refusal(engine.create(other));
    expect(refused).toMatchObject({ code: "internal", reason: "name_taken" });
    expect(refused.message).toContain(spec.name);
  });

  it("can be started twice and removed twice", async () => {
    const id = await engine.create(specFor(engine, image, "sleep 60"));
    await engine.start(id);
    await engine.start(id);
    await engine.remove(id);
    await engine.remove(id);
    await engine.stop(id, { signal: "SIGTERM", graceSeconds: 1 });
    await engine.kill(id, "SIGTERM");
    expect(await engine.inspect(id)).toBeUndefined();
    expect(await engine.usage(id)).toBeUndefined();
    expect(await engine.wait(id, neverAborted())).toBeUndefined();
  });

  it("of others are neither seen nor touched", async () => {
    const foreign = await docker().createContainer({ Image: image, Cmd: ["sleep", "60"], Labels: { mine: "no" } });
    await foreign.start();
    try {
      expect(await engine.inspect(foreign.id)).toBeUndefined();
      const attempts = [
        engine.stop(foreign.id, { signal: "SIGTERM", graceSeconds: 0 }),
        engine.kill(foreign.id, "SIGKILL"),
        engine.remove(foreign.id),
        engine.start(foreign.id),
        engine.exec(foreign.id, ["true"], { timeoutMs: 1000, signal: neverAborted() }),
        engine.usage(foreign.id),
        outputOf(engine, foreign.id),
      ];
      for (const { message } of await Promise.all(attempts.map(refusal))) expect(message).toContain("is left alone");
      expect((await foreign.inspect()).State.Running).toBe(true);
      expect(await engine.list(engine.nodeId)).toEqual([]);
    } finally {
      await foreign.remove({ force: true });
    }
  });

  it("are stopped by their signal where they heed it, killed where they do not", async () => {
    const heeds = "trap 'exit 3' USR1; while :; do sleep 0.05; done";
    const polite = await engine.create(specFor(engine, image, heeds, { stopSignal: "SIGUSR1" }));
    await engine.start(polite);
    await engine.stop(polite, { signal: "SIGUSR1", graceSeconds: 20 });
    expect(await engine.inspect(polite)).toMatchObject({ status: "exited", exitCode: 3 });

    const stubborn = await engine.create(specFor(engine, image, "trap '' TERM; while :; do sleep 0.05; done"));
    await engine.start(stubborn);
    const began = performance.now();
    await engine.stop(stubborn, { signal: "SIGTERM", graceSeconds: 1 });
    expect(performance.now() - began).toBeGreaterThan(950);
    expect(await engine.inspect(stubborn)).toMatchObject({ status: "exited", exitCode: 137 });
  });

  it("being stopped, a second stop brings the kill forward and sends the signal once", async () => {
    const id = await engine.create(
      specFor(engine, image, "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done"),
    );
    await engine.start(id);
    await until(async () => (await outputOf(engine, id)).includes("up"));
    const slow = engine.stop(id, { signal: "SIGTERM", graceSeconds: 3600 });
    await until(async () => (await outputOf(engine, id)).includes("asked"));
    await engine.stop(id, { signal: "SIGTERM", graceSeconds: 0.5 });
    await slow;
    expect(await outputOf(engine, id)).toBe("up\nasked\n");
    expect(await engine.inspect(id)).toMatchObject({ exitCode: 137 });
  });

  it("run commands inside, whose output is cut at 64 KiB", async () => {
    const id = await engine.create(specFor(engine, image, "sleep 60"));
    await engine.start(id);
    const exec = (command: string) =>
      engine.exec(id, ["/bin/sh", "-c", command], { timeoutMs: 10_000, signal: neverAborted() });
    expect(await exec("echo yes; exit 4")).toEqual({ exitCode: 4, output: "yes\n" });
    const long = await exec("head -c 1000000 /dev/zero | tr '\\0' x");
    expect(long.exitCode).toBe(0);
    expect(long.output).toBe("x".repeat(64 * 1024));
    // Far more than is listened to: it still comes to its own end, and the code is known.
    const loud = await exec("dd if=/dev/zero bs=1M count=20; exit 5");
    expect(loud).toEqual({ exitCode: 5, output: "\0".repeat(64 * 1024) });
    const missing = await engine.exec(id, ["/nope"], { timeoutMs: 10_000, signal: neverAborted() });
    expect(missing.exitCode).toBeGreaterThan(125);
  });

  it("end a command inside whose time is over, with all it started", async () => {
    const id = await engine.create(specFor(engine, image, "sleep 60"));
    await engine.start(id);
    const began = performance.now();
    const argv = ["/bin/sh", "-c", "echo begun; sleep 4711 & sleep 4711"];
    const cut = await engine.exec(id, argv, { timeoutMs: 500, signal: neverAborted() });
    expect(cut).toEqual({ output: "begun\n" });
    expect(performance.now() - began).toBeLessThan(5_000);
    const { output } = await engine.exec(id, ["ps"], { timeoutMs: 10_000, signal: neverAborted() });
    expect(output).not.toContain("4711");
  });

  it("end such a command also where this process may not signal it itself", async () => {
    const id = await engine.create(specFor(engine, image, "sleep 60"));
    await engine.start(id);
    const refuse = vi.spyOn(process, "kill").mockImplementation(() => {
      throw Object.assign(new Error("kill EPERM"), { code: "EPERM" });
    });
    try {
      const argv = ["/bin/sh", "-c", "sleep 4711 & sleep 4711"];
      const stop = new AbortController();
      setTimeout(() => stop.abort(new Error("enough")), 300);
      await expect(engine.exec(id, argv, { timeoutMs: 60_000, signal: stop.signal })).rejects.toThrow("enough");
      expect(refuse).toHaveBeenCalled();
    } finally {
      refuse.mockRestore();
    }
    const { output } = await engine.exec(id, ["ps"], { timeoutMs: 10_000, signal: neverAborted() });
    expect(output).not.toContain("4711");
  });

  it("tell what they use", async () => {
    const id = await engine.create(specFor(engine, image, "while :; do :; done", { memoryMiB: 64 }));
    await engine.start(id);
    const first = await engine.usage(id);
    expect(first).not.toHaveProperty("cpuPercent");
    expect(first?.memoryLimitMiB).toBe(64);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const second = await engine.usage(id);
    expect(second?.cpuPercent).toBeGreaterThan(5);
    expect(second?.cpuSeconds).toBeGreaterThan(first?.cpuSeconds ?? Infinity);
    expect(second?.memoryMiB).toBeGreaterThan(0);
    expect(second?.memoryMiB).toBeLessThan(64);
    await engine.stop(id, { signal: "SIGKILL", graceSeconds: 0 });
    expect(await engine.usage(id)).toBeUndefined();
    await docker().getContainer(id).remove();
    expect(await engine.usage(id)).toBeUndefined();
  });

  it("leave no descriptor behind, however often they come and go", async () => {
    const cycle = async () => {
      const { id } = await runToEnd(engine, specFor(engine, image, "echo x"));
      await engine.remove(id);
    };
    await cycle();
    const before = await settledDescriptors();
    for (let i = 0; i < 5; i++) await cycle();
    await until(() => openDescriptors() <= before);
    expect(await engine.list(engine.nodeId)).toEqual([]);
  });
});

async function fetchText(url: string): Promise<string> {
  return await fetch(url).then(
    (response) => response.text(),
    () => "",
  );
}

async function freePort(): Promise<number> {
  const { createServer } = await import("node:net");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}
