import { describe, expect, it } from "vitest";
import { StatsAnswer } from "../../src/engine/answers.ts";
import { parseAnswer } from "../../src/engine/client.ts";
import { explain, translate } from "../../src/engine/errors.ts";
import { readEvent } from "../../src/engine/events.ts";
import { deviceRequests, gpuEnvironment, recordedGpus } from "../../src/engine/gpu.ts";
import { parseReference } from "../../src/engine/images.ts";
import { PullProgress } from "../../src/engine/pull-progress.ts";
import { usageOf } from "../../src/engine/usage.ts";

describe("image names", () => {
  it.each([
    ["busybox", { repository: "busybox", tag: "latest" }],
    ["busybox:1.36", { repository: "busybox", tag: "1.36" }],
    ["localhost:5000/a/b", { repository: "localhost:5000/a/b", tag: "latest" }],
    ["reg.io:5000/a/b:v1_x", { repository: "reg.io:5000/a/b", tag: "v1_x" }],
    [`a/b@sha256:${"0".repeat(64)}`, { repository: "a/b", digest: `sha256:${"0".repeat(64)}` }],
    [`h:1/a:tag@sha256:${"f".repeat(64)}`, { repository: "h:1/a", digest: `sha256:${"f".repeat(64)}` }],
  ])("%s", (reference, parts) => {
    expect(parseReference(reference)).toEqual(parts);
  });

  it.each(["", " ", "a b", "../x", "a/../b", "a//b", "a?x=1", "a#b", "a%2e", "a@sha256:1", "-a", "a/\n"])(
    "%j is none",
    (reference) => {
      expect(() => parseReference(reference)).toThrow("is no image name");
    },
  );
});

describe("progress of a pull", () => {
  it("adds up the layers, never more than there is", () => {
    const progress = new PullProgress();
    const says = (id: string, status: string, current?: number, total?: number) =>
      progress.take({
        id,
        status,
        ...(current !== undefined && { progressDetail: { current, ...(total !== undefined && { total }) } }),
      });
    says("a", "Pulling fs layer");
    says("a", "Downloading", 10, 100);
    says("b", "Downloading", 5, 50);
    expect([progress.currentBytes, progress.totalBytes]).toEqual([15, 150]);
    says("c", "Downloading", 7);
    expect([progress.currentBytes, progress.totalBytes]).toEqual([22, 157]);
    says("a", "Verifying Checksum");
    says("a", "Extracting", 3, 100);
    says("d", "Already exists");
    expect([progress.currentBytes, progress.totalBytes]).toEqual([112, 157]);
    says("b", "Downloading", 2, 50);
    expect(progress.currentBytes).toBe(109);
  });

  it("sizes that are none change nothing, and what is told stays a whole number", () => {
    const progress = new PullProgress();
    const downloads = (id: string, current: number, total: number) =>
      progress.take({ id, status: "Downloading", progressDetail: { current, total } });
    downloads("a", 5, 10);
    for (const size of [-1, 0.5, 1e18, 2 ** 53]) downloads("a", size, size);
    expect([progress.currentBytes, progress.totalBytes]).toEqual([5, 10]);
    for (const id of ["b", "c"]) downloads(id, Number.MAX_SAFE_INTEGER, 1);
    expect(progress.totalBytes).toBe(Number.MAX_SAFE_INTEGER);
  });

  it("repetition is no movement, bytes and new words are", () => {
    let now = 0;
    const progress = new PullProgress(() => now);
    const line = { id: "a", status: "Downloading", progressDetail: { current: 10, total: 100 } };
    now = 100;
    progress.take(line);
    now = 200;
    progress.take(line);
    expect(progress.changedAt).toBe(100);
    progress.take({ ...line, progressDetail: { current: 11, total: 100 } });
    expect(progress.changedAt).toBe(200);
    now = 300;
    progress.take({ id: "a", status: "Extracting", progressDetail: { current: 4, units: "s" } });
    expect(progress.changedAt).toBe(300);
    expect(progress.currentBytes).toBe(100);
  });
});

describe("usage", () => {
  const networks = { eth0: { rx_bytes: 10, tx_bytes: 20 }, eth1: { rx_bytes: 1, tx_bytes: 2 } };
  const answer = (memory_stats: object, cpuNs: number, read: string) =>
    StatsAnswer.parse({ read, cpu_stats: { cpu_usage: { total_usage: cpuNs } }, memory_stats, networks });
  const MIB = 1024 * 1024;
  const host = 64 * 1024 * MIB;

  it("with cgroup v1 leaves out the cache of the whole subtree", () => {
    const stats = { total_inactive_file: 30 * MIB, inactive_file: 1 * MIB };
    const v1 = answer({ usage: 100 * MIB, limit: 200 * MIB, stats }, 5e9, "2026-01-01T00:00:10Z");
    expect(usageOf(v1, { cpuSeconds: 2, atMs: Date.parse("2026-01-01T00:00:08Z") }, host)).toEqual({
      cpuPercent: 150,
      cpuSeconds: 5,
      memoryMiB: 70,
      memoryLimitMiB: 200,
      networkRxBytes: 11,
      networkTxBytes: 22,
    });
  });

  it("with cgroup v2 leaves out the inactive cache; no limit is the machine's memory, or the largest number", () => {
    const stats = { inactive_file: 20 * MIB, anon: 5 * MIB };
    for (const limit of [host, 2 ** 63]) {
      const usage = usageOf(answer({ usage: 50 * MIB, limit, stats }, 1e9, "2026-01-01T00:00:10Z"), undefined, host);
      expect(usage).toEqual({ cpuSeconds: 1, memoryMiB: 30, networkRxBytes: 11, networkTxBytes: 22 });
    }
  });

  it("of a container that was started again begins anew, of one that does not run there is none", () => {
    const before = { cpuSeconds: 9, atMs: Date.parse("2026-01-01T00:00:08Z") };
    expect(usageOf(answer({ usage: 1 }, 1e9, "2026-01-01T00:00:10Z"), before, host)).not.toHaveProperty("cpuPercent");
    expect(usageOf(answer({}, 0, "0001-01-01T00:00:00Z"), before, host)).toBeUndefined();
  });
});

it("usage that no container can have is not the engine's", () => {
  const stats = (cpu: number, rx_bytes: number, usage = 1) => ({
    read: "2026-01-01T00:00:10Z",
    cpu_stats: { cpu_usage: { total_usage: cpu } },
    memory_stats: { usage },
    networks: { a: { rx_bytes, tx_bytes: 0 }, b: { rx_bytes, tx_bytes: 0 } },
  });
  for (const wrong of [stats(-1, 0), stats(0, -1), stats(0, 0.5), stats(0, 0, -1)]) {
    expect(StatsAnswer.safeParse(wrong).success).toBe(false);
  }
  // 200 days of CPU in nanoseconds are beyond 2^53.
  const many = StatsAnswer.parse(stats(200 * 86_400e9, Number.MAX_SAFE_INTEGER));
  expect(usageOf(many, undefined, 2 ** 40)).toMatchObject({
    cpuSeconds: 200 * 86_400,
    networkRxBytes: Number.MAX_SAFE_INTEGER,
  });
});

describe("GPUs", () => {
  it("are asked for by UUID, without a count; none is asked for as nothing", () => {
    expect(deviceRequests(["GPU-a", "MIG-b"])).toEqual([
      { Driver: "nvidia", DeviceIDs: ["GPU-a", "MIG-b"], Capabilities: [["gpu"]] },
    ]);
    expect(deviceRequests([])).toEqual([]);
  });

  it("are read back from both of the engine's ways", () => {
    const requests = [
      { Driver: "nvidia", DeviceIDs: ["GPU-a"] },
      { Driver: "cdi", DeviceIDs: ["nvidia.com/gpu=GPU-b"] },
    ];
    expect(recordedGpus(requests)).toEqual(["GPU-a", "GPU-b"]);
  });

  it("cannot be had by a variable", () => {
    const asking = { NVIDIA_VISIBLE_DEVICES: "all", NVIDIA_IMEX_CHANNELS: "0", NVIDIA_DRIVER_CAPABILITIES: "all" };
    expect(gpuEnvironment(asking, [])).toEqual({ NVIDIA_VISIBLE_DEVICES: "void", NVIDIA_DRIVER_CAPABILITIES: "all" });
    expect(gpuEnvironment(asking, ["GPU-a"])).toMatchObject({ NVIDIA_VISIBLE_DEVICES: "GPU-a" });
  });
});

/** What engines say, word for word, and what becomes of it. */
const SAID: [string, string, string][] = [
  [
    'OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "foo": executable file not found in $PATH: unknown',
    "invalid_spec",
    "command_not_found",
  ],
  [
    'failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "/foo": stat /foo: no such file or directory: unknown',
    "invalid_spec",
    "command_not_found",
  ],
  [
    'OCI runtime create failed: runc create failed: unable to start container process: exec: "/etc/passwd": permission denied: unknown',
    "invalid_spec",
    "command_not_executable",
  ],
  [
    'OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "/etc": is a directory: permission denied: unknown',
    "invalid_spec",
    "command_not_executable",
  ],
  ['could not select device driver "nvidia" with capabilities: [[gpu]]', "no_matching_gpu", "no_gpu_support"],
  [
    "OCI runtime create failed: runc create failed: unable to start container process: error during container init: error running hook #0: error running hook: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy'\nnvidia-container-cli: device error: GPU-dead: unknown device: unknown",
    "no_matching_gpu",
    "gpu_unknown_to_driver",
  ],
  [
    "error running hook #0: exit status 1, stderr: nvidia-container-cli: initialization error: nvml error: driver not loaded",
    "no_matching_gpu",
    "gpu_hook_failed",
  ],
  [
    "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: error running hook #0: fork/exec /usr/bin/nvidia-ctk: no such file or directory: unknown",
    "no_matching_gpu",
    "gpu_hook_failed",
  ],
  [
    "error running hook #0: stderr: nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver to a newer version",
    "driver_too_old",
    "driver_too_old",
  ],
  [
    "driver failed programming external connectivity on endpoint x (abc): Bind for 0.0.0.0:30000 failed: port is already allocated",
    "internal",
    "port_taken",
  ],
  [
    "driver failed programming external connectivity on endpoint x: Error starting userland proxy: listen tcp4 127.0.0.1:30000: bind: address already in use",
    "internal",
    "port_taken",
  ],
  [
    "linux spec user: unable to find user nobodyhere: no matching entries in passwd file",
    "invalid_spec",
    "no_such_user",
  ],
  ["manifest for localhost:5000/x:2 not found: manifest unknown: manifest unknown", "pull_failed", "no_such_image"],
  [
    "pull access denied for nosuch/image, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
    "pull_failed",
    "no_such_image",
  ],
  ['Head "https://reg.example/v2/x/manifests/1": unauthorized: authentication required', "pull_failed", "needs_auth"],
  ["no matching manifest for linux/arm64/v8 in the manifest list entries", "invalid_spec", "wrong_architecture"],
  [
    "failed to register layer: Error processing tar file(exit status 1): write /big: no space left on device",
    "insufficient_disk",
    "disk_full",
  ],
  ["toomanyrequests: You have reached your pull rate limit", "pull_failed", "rate_limited"],
  ['Get "https://reg.example/v2/": x509: certificate signed by unknown authority', "pull_failed", "registry_tls"],
  [
    'Get "https://nosuch.example/v2/": dial tcp: lookup nosuch.example: no such host',
    "pull_failed",
    "registry_unreachable",
  ],
  ["unexpected EOF", "pull_failed", "pull_broken_off"],
  [
    'connection error: desc = "transport: error while dialing: dial unix /run/containerd/containerd.sock: connect: connection refused"',
    "engine_unavailable",
    "engine_unavailable",
  ],
];

describe("the engine's errors", () => {
  it.each(SAID)("%s", (words, code, reason) => {
    const error = explain(words, "do it");
    expect(error).toMatchObject({ code, details: { reason } });
    // For a person first, with the engine's own words behind.
    expect(error.message).toMatch(/^could not do it: [^(]+ \(/);
  });

  it("that nobody foresaw are passed on, without what lets anybody fetch a layer", () => {
    const words = 'strange thing at "https://cdn.example/blob?X-Signature=abc&Expires=1": 418';
    const error = explain(words, "pull x", { otherwise: "pull_failed" });
    expect(error.code).toBe("pull_failed");
    expect(error.message).toBe('could not pull x: strange thing at "https://cdn.example/blob?…": 418');
  });

  it("that say the engine is not ready show no signed address either, and are not told at any length", () => {
    const words = `https://cdn.example/layer?X-Amz-Signature=secret ${"x".repeat(5000)}`;
    const error = translate(Object.assign(new Error(words), { statusCode: 503 }), "pull", { socketPath: "/s" });
    expect(error.message).not.toContain("secret");
    expect(error.message.length).toBeLessThan(600);
  });

  it.each([
    `no matching manifest for ${"x".repeat(5000)}`,
    `unresolvable CDI devices ${"x".repeat(5000)}`,
    `nvidia-container-cli: device error: ${"x".repeat(5000)}: unknown device`,
    "no matching manifest for https://cdn.example/layer?X-Amz-Signature=secret",
  ])("that quote the engine quote no more than a person reads, and no secrets", (words) => {
    const { message } = explain(words, "pull");
    expect(message.length).toBeLessThan(1200);
    expect(message).not.toContain("secret");
  });

  it("of the connection say what to do; a mistake of ours stays one", () => {
    const options = { socketPath: "/run/docker.sock" };
    const denied = translate(Object.assign(new Error("connect"), { code: "EACCES" }), "list", options);
    expect(denied).toMatchObject({ code: "engine_unavailable" });
    expect(denied.message).toContain("add it to the group docker");
    const ours = new TypeError("x is not a function");
    expect(translate(ours, "list", options)).toBe(ours);
  });
});

it("an answer that is not the engine's is told in bounds, whatever its keys are", () => {
  const answer = { read: "", cpu_stats: { cpu_usage: {} }, memory_stats: {}, networks: { ["x".repeat(100_000)]: 1 } };
  expect(() => parseAnswer(StatsAnswer, answer, "usage")).toThrow(/^the engine's answer about usage is not .{20,400}$/);
});

it("events are read for their container, and nothing else is", () => {
  const die = { Type: "container", Action: "die", Actor: { ID: "abc", Attributes: {} } };
  expect(readEvent(die)).toEqual({ containerId: "abc", action: "die" });
  expect(readEvent({ ...die, Action: "exec_start: /bin/sh" })).toEqual({ containerId: "abc", action: "other" });
  for (const other of [{ ...die, Type: "network" }, { Type: "container", Action: "die" }, null, 7, "die"]) {
    expect(readEvent(other)).toBeUndefined();
  }
});
