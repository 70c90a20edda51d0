import { describe, expect, it } from "vitest";
import { Telemetry } from "../../src/protocol/agent-frames.ts";
import { Challenge, Command, Logs, Sync, Welcome } from "../../src/protocol/coordinator-frames.ts";
import { DurableEvent, EventBody } from "../../src/protocol/event.ts";
import { Workload } from "../../src/protocol/workload.ts";

const AT = "2026-01-31T12:00:00.000Z";

describe("Workload", () => {
  it("needs an id, a generation and an image, and fills in the rest as the contract says", () => {
    expect(Workload.parse({ id: "w", generation: 0, image: "busybox" })).toEqual({
      id: "w",
      generation: 0,
      image: "busybox",
      priority: 100,
      preemptible: true,
      env: {},
      secretEnv: {},
      gpus: { count: 0 },
      resources: {},
      ports: [],
      caches: [],
      stop: { signal: "SIGTERM", graceSeconds: 10 },
      restart: { policy: "never", maxRetries: 0 },
      onDisconnect: { action: "continue", afterSeconds: 0 },
    });
  });

  it("fills in what is left out within its parts", () => {
    const workload = Workload.parse({
      id: "w",
      generation: 1,
      image: "busybox",
      ports: [{ container: 80 }],
      health: { http: { port: 80, path: "/" } },
      stop: { graceSeconds: 3 },
      gpus: {},
    });
    expect(workload.ports).toEqual([{ container: 80, protocol: "tcp" }]);
    expect(workload.health).toEqual({
      http: { port: 80, path: "/" },
      intervalSeconds: 10,
      timeoutSeconds: 5,
      startPeriodSeconds: 0,
      retries: 3,
    });
    expect(workload.stop).toEqual({ signal: "SIGTERM", graceSeconds: 3 });
    expect(workload.gpus).toEqual({ count: 0 });
  });

  it("ignores fields of a later version", () => {
    expect(Workload.parse({ id: "w", generation: 1, image: "i", later: true })).not.toHaveProperty("later");
  });

  const base = { id: "w", generation: 1, image: "busybox" };
  it.each([
    ["an id that is no file name", { id: "../etc" }],
    ["an id of 64 characters", { id: "x".repeat(64) }],
    ["a negative generation", { generation: -1 }],
    ["a generation beyond what a double counts", { generation: 2 ** 53 }],
    ["a NUL in a variable", { env: { A: "a\0b" } }],
    ["a variable named with =", { env: { "A=B": "c" } }],
    ["a NUL in the command", { command: ["a\0"] }],
    ["a relative workdir", { workdir: "work" }],
    ["a cache with a colon in its path", { caches: [{ name: "m", path: "/a:ro" }] }],
    ["a port 0", { ports: [{ container: 0 }] }],
    ["a signal that is none", { stop: { signal: "TERM" } }],
    ["a grace of two days", { stop: { graceSeconds: 200_000 } }],
    ["less memory than an engine gives", { resources: { memoryMiB: 5 } }],
    ["null for unknown", { user: null }],
    ["a number as a string", { priority: "100" }],
  ])("refuses %s", (_what, changes) => {
    expect(Workload.safeParse({ ...base, ...changes }).success).toBe(false);
  });
});

describe("frames", () => {
  it("take what the contract gives as optional as absent, never as null", () => {
    const telemetry = { type: "telemetry", at: AT, gpus: [], host: {}, workloads: [], skipped: 0 };
    expect(Telemetry.safeParse(telemetry).success).toBe(true);
    expect(Telemetry.safeParse({ ...telemetry, host: { cpuPercent: null } }).success).toBe(false);
    expect(Telemetry.safeParse({ ...telemetry, gpus: [{ uuid: "GPU-1", powerWatts: "N/A" }] }).success).toBe(false);
  });

  it("read a challenge with and without padding, but not a shorter nonce", () => {
    const challenge = { type: "challenge", coordinatorId: "c", time: AT };
    expect(Challenge.safeParse({ ...challenge, nonce: "A".repeat(43) }).success).toBe(true);
    expect(Challenge.safeParse({ ...challenge, nonce: `${"A".repeat(43)}=` }).success).toBe(true);
    expect(Challenge.safeParse({ ...challenge, nonce: "A".repeat(42) }).success).toBe(false);
    expect(Challenge.safeParse({ ...challenge, nonce: "+".repeat(43) }).success).toBe(false);
  });

  it("read a sync whatever its entries are, so that a bad one harms no other", () => {
    expect(Sync.safeParse({ type: "sync", workloads: [1, null, { id: "w" }] }).success).toBe(true);
    expect(Sync.safeParse({ type: "sync" }).success).toBe(false);
  });

  it("have an id for each command, and defaults", () => {
    expect(Command.safeParse({ type: "resume" }).success).toBe(false);
    expect(Command.safeParse({ type: "resume", id: "" }).success).toBe(false);
    expect(Command.safeParse({ type: "reboot", id: "1" }).success).toBe(false);
    expect(Logs.parse({ type: "logs", id: "1", workload: "w" })).toMatchObject({ follow: false });
  });

  it("bound what a welcome may ask for", () => {
    const welcome = {
      type: "welcome",
      sessionId: "s",
      heartbeatSeconds: 15,
      leaseSeconds: 60,
      telemetryIntervalMs: 1000,
      acked: 0,
    };
    expect(Welcome.safeParse(welcome).success).toBe(true);
    expect(Welcome.safeParse({ ...welcome, heartbeatSeconds: 0 }).success).toBe(false);
    expect(Welcome.safeParse({ ...welcome, telemetryIntervalMs: 1 }).success).toBe(false);
    expect(Welcome.safeParse({ ...welcome, acked: -1 }).success).toBe(false);
  });
});

describe("events", () => {
  it("carry their place and their body in one object", () => {
    const event = { seq: 1, at: AT, kind: "workload", workload: "w", generation: 0, state: "running" };
    expect(DurableEvent.parse(event)).toEqual(event);
    expect(DurableEvent.safeParse({ ...event, seq: 0 }).success).toBe(false);
    expect(DurableEvent.safeParse({ ...event, at: "2026-01-31T12:00:00Z" }).success).toBe(false);
    expect(DurableEvent.safeParse({ ...event, state: "resting" }).success).toBe(false);
  });

  it("are of the contract's seven kinds", () => {
    const kinds = EventBody.options.map((option) => option.shape.kind.value).sort();
    expect(kinds).toEqual(["gap", "gpuHealth", "node", "preemption", "pressure", "usage", "workload"]);
  });
});
