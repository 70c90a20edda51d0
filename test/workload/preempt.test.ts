import { afterEach, describe, expect, it } from "vitest";
import { planEnd } from "../../src/workload/end-plan.ts";
import { agentOn, type Disk, ended, exits, leave, leaveAll, oneGpu, pause, reached, stage, until } from "./stage.ts";

afterEach(leaveAll);

describe("preemption", () => {
  const checkpoint = { exec: ["save"], timeoutSeconds: 60 };
  /** The story of a preemption: its phases and the workload's last states, in order. */
  const story = (disk: Disk) =>
    disk.events.flatMap((event) =>
      event.kind === "preemption"
        ? [event.phase]
        : event.kind === "workload" && event.state !== "accepted"
          ? [event.state]
          : [],
    );

  it("gives notice, lets it checkpoint, stops it, and says when it is over", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({ ...oneGpu, stop: { graceSeconds: 5, checkpoint } });
    await reached(disk, "running");
    expect(supervisor.preempt(["w"], { cause: "owner", message: "my turn" })).toBe(1);
    await ended(disk);
    expect(story(disk).slice(-5)).toEqual(["notice", "stopping", "checkpointed", "preempted", "finished"]);
    expect(world.calls.map(({ call }) => call).filter((call) => call === "exec" || call === "stop")).toEqual([
      "exec",
      "stop",
    ]);
    expect(disk.events.find(({ kind }) => kind === "preemption")).toMatchObject({
      cause: "owner",
      workloads: ["w"],
      gpus: ["GPU-0"],
      message: "my turn",
    });
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "preempted", reason: "owner", message: "my turn" });
  });

  it("is one notice for many, and none for what has ended", async () => {
    const { disk, agent, supervisor } = await stage();
    for (const id of ["a", "b"]) agent.assign({ id });
    agent.assign({ id: "c", ...exits(0) });
    await ended(disk, "c");
    await reached(disk, "running", "a");
    await reached(disk, "running", "b");
    expect(supervisor.preempt(["a", "b", "c", "a"], { cause: "schedule" })).toBe(2);
    await ended(disk, "a");
    await ended(disk, "b");
    const notices = disk.events.filter((event) => event.kind === "preemption" && event.phase === "notice");
    expect(notices).toMatchObject([{ workloads: ["a", "b"] }]);
  });

  it("a second time gives no second notice, and can only make it sooner", async () => {
    const { disk, world, agent, supervisor } = await stage();
    let stubborn = true;
    world.before = (call) => (call === "stop" && stubborn ? new Promise(() => undefined) : undefined);
    agent.assign({ stop: { graceSeconds: 600 } });
    await reached(disk, "running");
    supervisor.preempt(["w"], { cause: "schedule" });
    await until(() => world.count("stop") === 1, "it is being stopped");
    supervisor.preempt(["w"], { cause: "owner", graceSeconds: 6000 });
    stubborn = false;
    supervisor.preempt(["w"], { cause: "owner", graceSeconds: 0 });
    await ended(disk);
    expect(world.calls.filter(({ call }) => call === "stop").at(-1)?.detail).toMatchObject({ graceSeconds: 0 });
    expect(story(disk).filter((word) => word === "notice")).toHaveLength(1);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "preempted", reason: "schedule" });
  });

  it("of a workload that is being released gives no notice that is never finished", async () => {
    const { disk, world, agent, supervisor } = await stage();
    let stubborn = true;
    world.before = (call) => (call === "stop" && stubborn ? new Promise(() => undefined) : undefined);
    agent.assign({ stop: { graceSeconds: 600 } });
    await reached(disk, "running");
    supervisor.release("w");
    await until(() => world.count("stop") === 1, "it is being stopped");
    stubborn = false;
    supervisor.preempt(["w"], { cause: "owner", graceSeconds: 0 });
    await ended(disk);
    const phases = story(disk);
    expect(phases.filter((word) => word === "finished")).toHaveLength(
      phases.filter((word) => word === "notice").length,
    );
  });

  it("told to the coordinator and not yet recorded in a crash is not forgotten", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({});
    await reached(disk, "running");
    agent.disk.after = () => {
      agent.line.cut = true;
    };
    try {
      supervisor.preempt(["w"], { cause: "owner", graceSeconds: 1 });
    } catch {
      // The rest of it was not written down.
    }
    await leave(agent);
    const next = agentOn(disk, world);
    await next.supervisor.restore();
    await pause(300);
    // Either nobody was told, or it goes on as it was told.
    const phases = story(disk);
    expect(phases.includes("notice")).toBe(phases.includes("finished"));
  });

  it("goes on with the checkpoint where the agent left in the middle of it", async () => {
    const { disk, world, agent, supervisor } = await stage();
    world.before = (call) => (call === "exec" ? new Promise(() => undefined) : undefined);
    agent.assign({ stop: { graceSeconds: 5, checkpoint } });
    await reached(disk, "running");
    supervisor.preempt(["w"], { cause: "owner" });
    await until(() => world.count("exec") === 1, "it checkpoints");
    await leave(agent);
    world.before = () => undefined;
    const next = agentOn(disk, world);
    await next.supervisor.restore();
    await ended(disk);
    expect(story(disk).slice(-3)).toEqual(["checkpointed", "preempted", "finished"]);
  });

  it("has its checkpoint on record also where the disk refused in between", async () => {
    const { disk, agent, supervisor } = await stage();
    let refusals = 1;
    agent.disk.before = (_, events) => {
      if (events.some((event) => event.kind === "preemption" && event.phase === "checkpointed") && refusals-- > 0) {
        throw new Error("SQLITE_FULL");
      }
    };
    agent.assign({ stop: { graceSeconds: 5, checkpoint } });
    await reached(disk, "running");
    supervisor.preempt(["w"], { cause: "owner" });
    await ended(disk);
    expect(story(disk)).toContain("checkpointed");
  });

  it("with a short grace does not wait for a long checkpoint", async () => {
    const { disk, agent, supervisor } = await stage();
    agent.assign({ stop: { graceSeconds: 5, checkpoint: { exec: ["save"], timeoutSeconds: 86_400 } } });
    await reached(disk, "running");
    const before = Date.now();
    supervisor.preempt(["w"], { cause: "cloud_notice", graceSeconds: 20 });
    const notice = disk.events.find((event) => event.kind === "preemption");
    const deadline = notice?.kind === "preemption" ? Date.parse(notice.deadline ?? "") : Number.NaN;
    expect(deadline - before).toBeLessThan(60_000);
    await ended(disk);
  });
});

describe("a notice ahead of its deadline", () => {
  /** Phases of preemption events with their cause, and the workload's states. */
  const story = (disk: Disk) =>
    disk.events.flatMap((event) =>
      event.kind === "preemption" ? [`${event.phase} ${event.cause}`] : event.kind === "workload" ? [event.state] : [],
    );
  const checkpoint = { exec: ["save"], timeoutSeconds: 1 };
  const notices = (disk: Disk) =>
    disk.events.filter((event) => event.kind === "preemption" && event.phase === "notice");

  it("leaves the work its time, and ends it so that checkpoint and grace fit", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({ ...oneGpu, stop: { graceSeconds: 1, checkpoint } });
    await reached(disk, "running");
    const deadlineAt = agent.doors.steady() + 2600;
    supervisor.preempt(["w"], { cause: "schedule", begin: "late", deadlineAt });
    await pause(300);
    expect(disk.states("w").at(-1)).toBe("running");
    expect([...supervisor.holders().values()]).toEqual(["w"]);
    const [notice] = notices(disk);
    expect(Math.abs(Date.parse((notice as { deadline: string }).deadline) - deadlineAt)).toBeLessThan(50);
    await ended(disk);
    expect(world.calls.map(({ call }) => call).filter((call) => call === "exec" || call === "stop")).toEqual([
      "exec",
      "stop",
    ]);
    expect(story(disk).slice(-6)).toEqual([
      "running",
      "notice schedule",
      "stopping",
      "checkpointed schedule",
      "preempted",
      "finished schedule",
    ]);
  });

  it("can be withdrawn, and then nothing has happened", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign(oneGpu);
    await reached(disk, "running");
    supervisor.preempt(["w"], { cause: "cloud_notice", begin: "late", deadlineAt: agent.doors.steady() + 10_200 });
    expect(supervisor.withdraw(["w"], "it was withdrawn")).toBe(1);
    expect(supervisor.withdraw(["w"], "again")).toBe(0);
    await pause(400);
    expect(story(disk).slice(-3)).toEqual(["running", "notice cloud_notice", "withdrawn cloud_notice"]);
    expect(world.count("stop")).toBe(0);
    agent.clock.skewMs += 60_000;
    supervisor.release("w");
    await ended(disk);
    expect(story(disk).at(-1)).toBe("stopped");
  });

  it("is told to the tenant, and its withdrawal, and the next one once, with its signal, before its end begins", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({ ...oneGpu, stop: { graceSeconds: 1, noticeSignal: "SIGUSR1" } });
    await reached(disk, "running");
    const told = () =>
      world.calls.flatMap(({ call, detail }) => {
        if (call === "putFile") {
          const { phase, cause } = JSON.parse((detail as { text: string }).text) as { phase: string; cause: string };
          return [`${phase} ${cause}`];
        }
        return call === "kill" || call === "stop" ? [call] : [];
      });
    supervisor.preempt(["w"], { cause: "schedule", begin: "late", deadlineAt: agent.doors.steady() + 60_000 });
    await until(() => told().length === 2, "the tenant knows");
    supervisor.withdraw(["w"], "a longer evening");
    await until(() => told().length === 3, "the tenant knows of the withdrawal");
    supervisor.preempt(["w"], { cause: "cloud_notice", begin: "late", deadlineAt: agent.doors.steady() + 1200 });
    await ended(disk);
    expect(told()).toEqual(["notice schedule", "kill", "withdrawn schedule", "notice cloud_notice", "kill", "stop"]);
  });

  it("is replaced by a sooner one and by nothing else", async () => {
    const { disk, agent, supervisor } = await stage();
    agent.assign(oneGpu);
    await reached(disk, "running");
    const in_ = (ms: number) => agent.doors.steady() + ms;
    supervisor.preempt(["w"], { cause: "cloud_notice", begin: "never", message: "might be soon" });
    expect(supervisor.preempt(["w"], { cause: "schedule", begin: "late", deadlineAt: in_(60_000) })).toBe(1);
    expect(supervisor.preempt(["w"], { cause: "cloud_notice", begin: "late", deadlineAt: in_(90_000) })).toBe(0);
    expect(supervisor.preempt(["w"], { cause: "schedule", begin: "late", deadlineAt: in_(59_900) })).toBe(0);
    expect(supervisor.preempt(["w"], { cause: "cloud_notice", begin: "never" })).toBe(0);
    expect(supervisor.preempt(["w"], { cause: "cloud_notice", begin: "late", deadlineAt: in_(30_000) })).toBe(1);
    supervisor.preempt(["w"], { cause: "owner" });
    await ended(disk);
    expect(story(disk).filter((word) => word.startsWith("notice"))).toEqual([
      "notice cloud_notice",
      "notice schedule",
      "notice cloud_notice",
      "notice owner",
    ]);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "preempted", reason: "owner" });
  });

  it("is over when the work comes to its own end before", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign(oneGpu);
    await reached(disk, "running");
    supervisor.preempt(["w"], { cause: "schedule", begin: "late", deadlineAt: agent.doors.steady() + 60_000 });
    const machine = world.of("w");
    if (machine !== undefined) world.exit(machine, 0);
    await ended(disk);
    expect(story(disk).slice(-2)).toEqual(["succeeded", "finished schedule"]);
  });

  it("outlives the agent: the next one ends the work in time", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({ ...oneGpu, stop: { graceSeconds: 1 } });
    await reached(disk, "running");
    supervisor.preempt(["w"], { cause: "schedule", begin: "late", deadlineAt: agent.doors.steady() + 1500 });
    await leave(agent);
    const next = agentOn(disk, world);
    await next.supervisor.restore();
    await ended(disk);
    expect(notices(disk)).toHaveLength(1);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "preempted", reason: "schedule" });
  });

  it("to work that has not begun to run ends it at once: there is nothing to save", async () => {
    const { disk, world, agent, supervisor } = await stage();
    world.before = (call) => (call === "pull" ? new Promise(() => undefined) : undefined);
    agent.assign(oneGpu);
    await reached(disk, "pulling");
    supervisor.preempt(["w"], { cause: "owner", begin: "late", deadlineAt: agent.doors.steady() + 60_000 });
    await ended(disk);
    expect(story(disk)).toEqual(["accepted", "pulling", "notice owner", "preempted", "finished owner"]);
  });
});

describe("the time that is left", () => {
  it("is bounded by the provider's limit, and the notice says what was cut", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({ stop: { graceSeconds: 600, checkpoint: { exec: ["save"], timeoutSeconds: 60 } } });
    await reached(disk, "running");
    supervisor.preempt(["w"], { cause: "owner", message: "my turn" });
    await ended(disk);
    const notice = disk.events.find((event) => event.kind === "preemption");
    expect(notice).toMatchObject({
      message: "my turn; what was asked for does not fit before the deadline: w gets grace 60 of 600 s",
    });
    const told = notice?.kind === "preemption" ? Date.parse(notice.deadline ?? "") - Date.parse(notice.at) : 0;
    expect(Math.abs(told - 120_000)).toBeLessThan(1000);
    const stopped = world.calls.find(({ call }) => call === "stop")?.detail as { graceSeconds: number };
    expect(stopped.graceSeconds).toBeGreaterThan(110);
    expect(stopped.graceSeconds).toBeLessThanOrEqual(120);
  });

  it("after a quick checkpoint is no more grace than was asked for", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({ stop: { graceSeconds: 5, checkpoint: { exec: ["save"], timeoutSeconds: 300 } } });
    await reached(disk, "running");
    supervisor.preempt(["w"], { cause: "owner" });
    await ended(disk);
    const stopped = world.calls.find(({ call }) => call === "stop")?.detail as { graceSeconds: number };
    expect(stopped.graceSeconds).toBeLessThanOrEqual(5);
  });

  it("of a long release is the provider's limit once the owner wants the GPU", async () => {
    const { disk, world, agent, supervisor } = await stage();
    let stubborn = true;
    world.before = (call) => (call === "stop" && stubborn ? new Promise(() => undefined) : undefined);
    agent.assign({ stop: { graceSeconds: 80_000 } });
    await reached(disk, "running");
    supervisor.release("w");
    await until(() => world.count("stop") === 1, "it is being stopped");
    stubborn = false;
    supervisor.preempt(["w"], { cause: "owner" });
    await ended(disk);
    const stopped = world.calls.filter(({ call }) => call === "stop").at(-1)?.detail as { graceSeconds: number };
    expect(stopped.graceSeconds).toBeLessThanOrEqual(120);
  });
});

describe("planEnd", () => {
  it.each([
    [60, 20, 80, 60, 20, undefined],
    [60, 20, 70, 60, 10, "grace 10 of 20 s"],
    [60, 20, 40, 36, 4, "checkpoint 36 of 60 s, grace 4 of 20 s"],
    [60, 20, 5, 4, 1, "checkpoint 4 of 60 s, grace 1 of 20 s"],
    [0, 20, 0.5, 0, 0.5, "grace 0.5 of 20 s"],
    [60, 0, 30, 30, 0, "checkpoint 30 of 60 s"],
    [60, 20, -3, 0, 0, "checkpoint 0 of 60 s, grace 0 of 20 s"],
  ])("a checkpoint of %d s and a grace of %d s in %d s: %d and %d", (checkpoint, grace, left, save, rest, cut) => {
    const plan = planEnd({ checkpointMs: checkpoint * 1000, graceMs: grace * 1000 }, left * 1000);
    expect(plan).toEqual({ checkpointMs: save * 1000, graceMs: rest * 1000, ...(cut !== undefined && { cut }) });
  });
});
