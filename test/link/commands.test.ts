import { describe, expect, it } from "vitest";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { type AgentOptions, eventually, fakeCoordinator, startAgent } from "./harness.ts";

const WORKLOAD = { id: "w", generation: 1, image: "busybox" };

async function joined(options: Partial<AgentOptions> = {}) {
  const coordinator = await fakeCoordinator();
  const side = startAgent({ url: coordinator.url, ...options });
  const session = await coordinator.next();
  await session.join();
  return { coordinator, side, session };
}

describe("sync", () => {
  it("hands the complete set on, unread, and answers where it has an id", async () => {
    const { side, session } = await joined();
    session.send({ type: "sync", workloads: [WORKLOAD, "rubbish"] });
    await eventually(() => side.syncs.length === 1, "sync");
    expect(side.syncs[0]).toEqual([WORKLOAD, "rubbish"]);
    expect(await session.command({ type: "sync", id: "s2", workloads: [] })).toEqual({
      type: "reply",
      ref: "s2",
      ok: true,
    });
    expect(side.syncs[1]).toEqual([]);
  });

  it("that cannot be taken in ends the session, and the next one brings it again", async () => {
    let failures = 1;
    const taken: unknown[] = [];
    const { coordinator, side, session } = await joined({
      doors: {
        onSync: (workloads) => {
          failures -= 1;
          if (failures >= 0) throw new Error("disk full");
          taken.push(workloads);
        },
      },
    });
    session.send({ type: "sync", workloads: [WORKLOAD] });
    expect(await session.end()).toMatchObject({ code: 1011 });
    await (await coordinator.next()).start({}, [WORKLOAD]);
    await eventually(() => taken.length === 1, "the set taken in");
    expect(side.sessions).toEqual(["welcome", "end", "welcome"]);
  });

  it("comes before any assign", async () => {
    const { side, session } = await joined();
    const early = await session.command({ type: "assign", id: "a1", workload: WORKLOAD });
    expect(early).toMatchObject({
      ok: false,
      error: { code: "bad_message", message: expect.stringContaining("sync") },
    });
    expect(side.commands).toEqual([]);
    session.send({ type: "sync", workloads: [] });
    expect(await session.command({ type: "assign", id: "a2", workload: WORKLOAD })).toMatchObject({ ok: true });
    expect(side.commands).toMatchObject([{ type: "assign", id: "a2", workload: { id: "w", priority: 100 } }]);
  });

  it("is needed again in each session", async () => {
    const { coordinator, session } = await joined();
    session.send({ type: "sync", workloads: [] });
    session.socket.terminate();
    const next = await coordinator.next();
    await next.join();
    expect(await next.command({ type: "assign", workload: WORKLOAD })).toMatchObject({ ok: false });
  });
});

describe("a command", () => {
  it.each([
    { type: "release", workload: "w", graceSeconds: 5 },
    { type: "preempt", workload: "w", reason: "owner is back" },
    { type: "drain" },
    { type: "resume" },
    { type: "prefetch", image: "busybox" },
    { type: "configure", telemetryIntervalMs: 500 },
  ])("is carried out and answered once: $type", async (command) => {
    const { side, session } = await joined();
    session.send({ type: "sync", workloads: [] });
    expect(await session.command({ ...command, id: "c-1" })).toEqual({ type: "reply", ref: "c-1", ok: true });
    expect(side.commands).toEqual([{ ...command, id: "c-1" }]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(session.frames.filter(({ type }) => type === "reply")).toEqual([]);
  });

  it("that is refused is answered with code, message and figures", async () => {
    const { session } = await joined({
      doors: {
        onCommand: () => {
          throw new GpunodeError("gpu_busy", "GPU-1 is held by w2", { details: { free: 0, asked: 1 } });
        },
      },
    });
    expect(await session.command({ type: "drain", id: "c" })).toEqual({
      type: "reply",
      ref: "c",
      ok: false,
      error: { code: "gpu_busy", message: "GPU-1 is held by w2", details: { free: 0, asked: 1 } },
    });
  });

  it("that meets a bug of ours is answered as internal, without a secret in the answer or the log", async () => {
    const { side, session } = await joined({
      doors: {
        onCommand: async (command) => {
          throw new TypeError(`cannot use ${JSON.stringify(command)}\n    at canary-on-a-line-of-its-own`);
        },
      },
    });
    session.send({ type: "sync", workloads: [] });
    const secret = { ...WORKLOAD, secretEnv: { TOKEN: "canary-7c1e" } };
    const reply = await session.command({ type: "assign", workload: secret });
    expect(reply).toMatchObject({ ok: false, error: { code: "internal" } });
    expect(JSON.stringify(reply)).not.toContain("canary");
    const log = side.logged.filter((line) => line.includes("a bug"));
    expect(log).toHaveLength(1);
    expect(log[0]).toContain("commands.test.ts");
    expect(side.logged.join("\n")).not.toContain("canary");
  });

  it("that takes long holds up no other", async () => {
    const pull = Promise.withResolvers<void>();
    const { session } = await joined({
      doors: { onCommand: ({ type }) => (type === "prefetch" ? pull.promise : undefined) },
    });
    session.send({ type: "prefetch", id: "slow", image: "big" });
    expect(await session.command({ type: "resume", id: "quick" })).toMatchObject({ ref: "quick", ok: true });
    expect(session.frames).toEqual([]);
    pull.resolve();
    expect(await session.next("reply")).toMatchObject({ ref: "slow", ok: true });
  });

  it("is begun in the order it came, all within one segment or not", async () => {
    const { side, session } = await joined();
    for (let index = 0; index < 200; index += 1) session.send({ type: "resume", id: `c${index}` });
    await eventually(() => side.commands.length === 200, "all carried out");
    expect(side.commands.map(({ id }) => id)).toEqual(Array.from({ length: 200 }, (_, index) => `c${index}`));
  });
});

describe("a frame that cannot be used", () => {
  const BAD: [string, string | object, object][] = [
    ["no JSON", "{", { type: "error", code: "bad_message" }],
    ["no object", "[1]", { type: "error", code: "bad_message" }],
    ["no type", '{"id":"x1"}', { type: "reply", ref: "x1", ok: false, error: { code: "bad_message" } }],
    ["an unknown type", { type: "reboot" }, { type: "error", code: "unsupported" }],
    [
      "an unknown type with an id",
      { type: "reboot", id: "x2" },
      { type: "reply", ref: "x2", ok: false, error: { code: "unsupported" } },
    ],
    ["a type out of a prototype", { type: "constructor" }, { type: "error", code: "unsupported" }],
    [
      "a command without an id",
      { type: "drain" },
      { type: "error", code: "bad_message", message: expect.stringContaining("id") },
    ],
    [
      "a command with a wrong field",
      { type: "release", id: "x3", workload: 7 },
      {
        type: "reply",
        ref: "x3",
        ok: false,
        error: { code: "bad_message", message: expect.stringContaining("workload") },
      },
    ],
    [
      "a workload that cannot be",
      { type: "assign", id: "x4", workload: { id: "w" } },
      {
        type: "reply",
        ref: "x4",
        ok: false,
        error: { code: "bad_message", message: expect.stringContaining("workload.generation") },
      },
    ],
    ["sync without workloads", { type: "sync" }, { type: "error", code: "bad_message" }],
    [
      "a second challenge",
      { type: "challenge", nonce: "A".repeat(43), coordinatorId: "c", time: "t" },
      { type: "error", code: "bad_message" },
    ],
    [
      "a second welcome",
      { type: "welcome", id: "x5" },
      { type: "reply", ref: "x5", ok: false, error: { code: "bad_message" } },
    ],
    [
      "over 1 MiB",
      { type: "drain", id: "x6", pad: "x".repeat(1024 * 1024) },
      { type: "error", code: "bad_message", message: expect.stringContaining("1048576") },
    ],
    ["an id that is no text", { type: "drain", id: 6 }, { type: "error", code: "bad_message" }],
  ];
  it.each(BAD)("is answered and harms nothing: %s", async (_what, frame, answer) => {
    const { side, session } = await joined();
    session.send({ type: "sync", workloads: [] });
    session.send(frame);
    const reply = await session.until(
      () => session.frames.find(({ type }) => type === "error" || type === "reply"),
      "an answer",
    );
    expect(reply).toMatchObject(answer);
    expect(side.commands).toEqual([]);
    expect(await session.command({ type: "resume", id: "after" })).toMatchObject({ ok: true });
    expect(side.sessions).toEqual(["welcome"]);
  });

  it("as a binary one is answered, too", async () => {
    const { session } = await joined();
    session.socket.send(Buffer.from('{"type":"drain","id":"1"}'));
    expect(await session.next("error")).toMatchObject({
      code: "bad_message",
      message: expect.stringContaining("binary"),
    });
    expect(await session.command({ type: "resume" })).toMatchObject({ ok: true });
  });

  it("over 8 MiB is not read to its end: the socket closes with 1009 and the agent comes back", async () => {
    const { coordinator, side, session } = await joined();
    session.socket.send("x".repeat(8 * 1024 * 1024 + 1));
    expect(await session.end()).toMatchObject({ code: 1009 });
    await (await coordinator.next()).start();
    await eventually(() => side.link.status().state === "connected", "connected again");
  });

  it("in a flood ends the session with 4400, and not every one is answered", async () => {
    const { coordinator, session } = await joined();
    for (let index = 0; index < 5000; index += 1) session.send("rubbish");
    expect(await session.end()).toMatchObject({ code: 4400, reason: expect.stringContaining("too many") });
    expect(session.frames.filter(({ type }) => type === "error").length).toBeLessThanOrEqual(110);
    await (await coordinator.next()).start();
  });

  it("of ours, of which the coordinator complains, is logged, in bounds and without control characters", async () => {
    const { side, session } = await joined();
    for (let index = 0; index < 500; index += 1) {
      session.send({ type: "error", code: "bad_message", message: `no \u001b[2J good ${index}` });
    }
    expect(await session.command({ type: "resume" })).toMatchObject({ ok: true });
    const complaints = side.logged.filter((line) => line.includes("could not use a frame"));
    expect(complaints.length).toBeGreaterThan(50);
    expect(complaints.length).toBeLessThanOrEqual(110);
    expect(complaints[0]).not.toContain("u001b");
    expect(session.frames).toEqual([]);
  });
});

describe("a coordinator that sends but does not read", () => {
  it("is cut off before its answers fill the memory", async () => {
    const { side, session } = await joined({
      doors: {
        onCommand: () => {
          throw new GpunodeError("policy_denied", "x".repeat(100_000));
        },
      },
    });
    session.socket.pause();
    for (let index = 0; index < 600; index += 1) session.send({ type: "resume", id: `c${index}` });
    await eventually(() => side.sessions.includes("end"), "the session ended", 10_000);
    expect(side.logged.join("\n")).toContain("sends but does not read");
    session.socket.resume();
  }, 20_000);
});
