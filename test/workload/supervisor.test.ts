import { afterEach, describe, expect, it } from "vitest";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { Secret } from "../../src/protocol/secret.ts";
import type { WorkloadInput } from "../../src/protocol/workload.ts";
import type { KeptLogs } from "../../src/workload/kept-logs.ts";
import { LABEL_GENERATION, LABEL_NODE, LABEL_WORKLOAD } from "../../src/workload/needs.ts";
import { isTerminal } from "../../src/workload/state.ts";
import type { Supervisor, SupervisorDoors } from "../../src/workload/supervisor.ts";
import {
  agentOn,
  type ContainerStop,
  Disk,
  ended,
  exits,
  expectSound,
  leave,
  leaveAll,
  NODE_ID,
  oneGpu,
  pause,
  reached,
  stage,
  until,
  World,
  workload,
} from "./stage.ts";

afterEach(leaveAll);

describe("a workload", () => {
  it("is told step by step, ends once, and leaves no container", async () => {
    const { disk, world, agent } = await stage();
    agent.assign(exits(0));
    await ended(disk);
    await until(() => world.machines.size === 0, "the container is removed");
    expect(disk.states("w")).toEqual(["accepted", "pulling", "starting", "running", "succeeded"]);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({
      exitCode: 0,
      imageDigest: "sha256:d",
      timings: { pullMs: expect.any(Number) as number, startMs: expect.any(Number) as number },
    });
    expectSound(disk);
  });

  it("fails with its exit code", async () => {
    const { disk, agent } = await stage();
    agent.assign(exits(3));
    await ended(disk);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "failed", reason: "exit_code", exitCode: 3 });
  });

  it("assigned again in the same generation changes nothing, in an older one is refused", async () => {
    const { disk, world, agent } = await stage();
    agent.assign({ generation: 2, ...exits(0) });
    agent.assign({ generation: 2, ...exits(1) });
    await ended(disk, "w", 2);
    agent.assign({ generation: 2, ...exits(1) });
    expect(() => agent.assign({ generation: 1 })).toThrow(
      expect.objectContaining({ code: "stale_generation" }) as Error,
    );
    expect(world.count("create")).toBe(1);
    expect(disk.states("w", 2).at(-1)).toBe("succeeded");
  });

  it("is restarted on failure as often as it may be, and each restart is counted", async () => {
    const { disk, world, agent } = await stage();
    agent.assign({ ...exits(1, 4), restart: { policy: "on-failure", maxRetries: 1 } });
    await ended(disk);
    expect(disk.workloadEvents("w").map(({ state, restarts, reason }) => [state, restarts, reason])).toEqual([
      ["accepted", undefined, undefined],
      ["pulling", undefined, undefined],
      ["starting", undefined, undefined],
      ["running", undefined, undefined],
      ["running", 1, "restarted"],
      ["failed", 1, "exit_code"],
    ]);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ exitCode: 4 });
    expect(world.count("start")).toBe(2);
  });

  it("fails where it ran too long", async () => {
    const { disk, agent } = await stage();
    agent.assign({ maxRuntimeSeconds: 0.05 });
    await ended(disk);
    expect(disk.states("w").slice(-2)).toEqual(["stopping", "failed"]);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ reason: "max_runtime" });
  });

  it("ends when the coordinator was silent for longer than it accepts, another goes on", async () => {
    const { disk, agent } = await stage();
    agent.assign({ id: "leased", onDisconnect: { action: "stop", afterSeconds: 60 } });
    agent.assign({ id: "free" });
    await reached(disk, "running", "leased");
    await reached(disk, "running", "free");
    agent.clock.silentSince = Date.now() - 61_000;
    await ended(disk, "leased");
    expect(disk.workloadEvents("leased").at(-1)).toMatchObject({ state: "stopped", reason: "disconnected" });
    expect(disk.states("free").at(-1)).toBe("running");
  });

  it("is removed also where its last output cannot be kept", async () => {
    const keptLogs: KeptLogs = {
      keep: () => Promise.reject(new Error("ENOSPC: no space left on device")),
      read: () => Promise.resolve([]),
      forget: () => Promise.resolve(),
    };
    const { disk, world, agent } = await stage({ keptLogs });
    agent.assign(exits(0));
    await ended(disk);
    await until(() => world.machines.size === 0, "the container is removed", 8000);
  });

  it("gets ports of its own also where two come for them at once", async () => {
    const { world, agent } = await stage();
    const gate = Promise.withResolvers<void>();
    world.before = (call) => (call === "pull" ? gate.promise : undefined);
    for (const id of ["a", "b", "c"]) agent.assign({ id, ports: [{ container: 80 }, { container: 81 }] });
    await until(() => world.count("pull") === 3, "all pull");
    gate.resolve();
    await until(() => world.machines.size === 3, "all have containers");
    const given = [...world.machines.values()].flatMap(({ spec }) => spec.ports.map(({ host }) => host));
    expect(new Set(given).size).toBe(6);
  });

  it("gets host ports that nobody else gets in the same moment", async () => {
    const { world, agent } = await stage();
    let pulls = 0;
    // They come to their ports shortly one after the other, each while the one before it still looks for its own.
    world.before = (call) => (call === "pull" ? pause(pulls++) : undefined);
    const ports = Array.from({ length: 30 }, (_, n) => ({ container: 80 + n }));
    for (const id of ["a", "b", "c"]) agent.assign({ id, ports });
    await until(() => world.machines.size === 3, "all have containers");
    const given = [...world.machines.values()].flatMap(({ spec }) => spec.ports.map(({ host }) => host));
    expect(new Set(given).size).toBe(given.length);
  });
});

describe("an order to end", () => {
  it("cuts a pull", async () => {
    const { disk, world, agent, supervisor } = await stage();
    world.before = (call) => (call === "pull" ? new Promise(() => undefined) : undefined);
    agent.assign({});
    await until(() => world.count("pull") === 1, "it pulls");
    supervisor.release("w");
    await ended(disk);
    expect(disk.states("w")).toEqual(["accepted", "pulling", "stopped"]);
    expect(world.count("create")).toBe(0);
  });

  it.each(["inspect", "create"] as const)("during %s keeps it from ever starting", async (during) => {
    const { disk, world, agent, supervisor } = await stage();
    let inspections = 0;
    world.before = (call) => {
      // The first look is the one at the container that was just created.
      if (call === during && (call !== "inspect" || ++inspections === 1)) supervisor.release("w");
    };
    agent.assign({});
    await ended(disk);
    await until(() => world.machines.size === 0, "the container is removed");
    expect(world.count("start")).toBe(0);
    expect(disk.states("w").at(-1)).toBe("stopped");
  });

  it("during the start stops it again", async () => {
    const { disk, world, agent, supervisor } = await stage();
    world.before = (call) => {
      if (call === "start") supervisor.release("w");
    };
    agent.assign({});
    await ended(disk);
    expect(disk.states("w").slice(-3)).toEqual(["running", "stopping", "stopped"]);
    expectSound(disk);
  });

  it("ends the wait for a restart", async () => {
    const { disk, agent, supervisor } = await stage();
    agent.assign({ ...exits(1), restart: { policy: "on-failure", maxRetries: 9 } });
    await until(() => supervisor.records().some(({ startedAt }) => startedAt !== undefined), "it ran");
    await pause(50);
    supervisor.release("w");
    await ended(disk);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "stopped", exitCode: 1 });
  });

  it("sooner than the first one brings the kill forward, and keeps the first one's reason", async () => {
    const { disk, world, agent, supervisor } = await stage();
    let stubborn = true;
    world.before = (call) => (call === "stop" && stubborn ? new Promise(() => undefined) : undefined);
    agent.assign({ stop: { graceSeconds: 600 } });
    await reached(disk, "running");
    supervisor.preempt(["w"], { cause: "owner" });
    await until(() => world.count("stop") === 1, "it is being stopped");
    stubborn = false;
    supervisor.release("w", 0);
    await ended(disk);
    expect(world.calls.filter(({ call }) => call === "stop").at(-1)?.detail).toMatchObject({ graceSeconds: 0 });
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "preempted", reason: "owner", exitCode: 137 });
  });

  it("that comes while the notice is on its way counts as well", async () => {
    const told = Promise.withResolvers<boolean>();
    const { disk, world, agent, supervisor } = await stage();
    agent.doors.journal.told = () => told.promise;
    agent.assign({ stop: { graceSeconds: 600 } });
    await reached(disk, "running");
    supervisor.preempt(["w"], { cause: "owner" });
    await pause(20);
    supervisor.release("w", 0);
    await pause(20);
    told.resolve(true);
    await ended(disk);
    expect(world.calls.filter(({ call }) => call === "stop").at(-1)?.detail).toMatchObject({ graceSeconds: 0 });
  });

  it("to a workload nobody knows says so", async () => {
    const { supervisor } = await stage();
    expect(() => supervisor.release("x")).toThrow(expect.objectContaining({ code: "unknown_workload" }) as Error);
    expect(() => supervisor.preempt(["x"], { cause: "owner" })).toThrow(/no workload "x"/);
  });

  it("that the disk refuses is not given", async () => {
    const { disk, agent, supervisor } = await stage();
    agent.assign({});
    await reached(disk, "running");
    agent.disk.before = () => {
      throw new Error("SQLITE_FULL");
    };
    expect(() => supervisor.release("w")).toThrow(/refused/);
    agent.disk.before = () => undefined;
    await pause(50);
    expect(disk.states("w").at(-1)).toBe("running");
  });
});

describe("a new generation", () => {
  it("waits until the one before it has ended, on the same GPU", async () => {
    const { disk, world, agent } = await stage();
    const stopping = Promise.withResolvers<void>();
    world.before = (call) => (call === "stop" ? stopping.promise : undefined);
    agent.assign({ generation: 1, ...oneGpu });
    await reached(disk, "running");
    agent.assign({ generation: 2, ...oneGpu });
    await reached(disk, "starting", "w", 2);
    await pause(30);
    expect(world.count("create")).toBe(1);
    stopping.resolve();
    await reached(disk, "running", "w", 2);
    expect(disk.states("w", 1).slice(-2)).toEqual(["stopping", "stopped"]);
    expect(disk.workloadEvents("w").find(({ state }) => state === "stopped")).toMatchObject({ reason: "replaced" });
    expect(world.shared).toEqual([]);
    expectSound(disk);
  });

  it("during the pull of the one before it ends that", async () => {
    const { disk, world, agent } = await stage();
    let pulls = 0;
    world.before = (call) => (call === "pull" && ++pulls === 1 ? new Promise(() => undefined) : undefined);
    agent.assign({ generation: 1 });
    await until(() => pulls === 1, "it pulls");
    agent.assign({ generation: 2, ...exits(0) });
    await ended(disk, "w", 2);
    expect(disk.states("w", 1)).toEqual(["accepted", "pulling", "stopped"]);
  });

  it("of a generation that still waits itself: only the last one runs", async () => {
    const { disk, world, agent } = await stage();
    const stopping = Promise.withResolvers<void>();
    world.before = (call) => (call === "stop" ? stopping.promise : undefined);
    for (const generation of [1, 2, 3]) {
      agent.assign({ generation, ...oneGpu });
      await until(
        () => disk.states("w", generation).length >= (generation === 1 ? 4 : 3),
        `generation ${generation} is on its way`,
      );
    }
    await ended(disk, "w", 2);
    stopping.resolve();
    await reached(disk, "running", "w", 3);
    expect(disk.states("w", 2)).not.toContain("running");
    expect(world.shared).toEqual([]);
  });

  it("waiting for its GPU lets the agent leave, also where it was told to end in the moment of a look", async () => {
    const { disk, world, agent, supervisor } = await stage();
    world.before = (call, id) => {
      if (call === "stop") return new Promise(() => undefined);
      if (call === "inspect" && id === "gpunode-nnnnnn-w-2") supervisor.release("w");
      return undefined;
    };
    agent.assign({ generation: 1, ...oneGpu });
    await reached(disk, "running");
    agent.assign({ generation: 2, ...oneGpu });
    await reached(disk, "starting", "w", 2);
    await pause(50);
    await leave(agent);
  });

  it("that is refused on sync leaves the one before it under control", async () => {
    const { disk, agent, supervisor } = await stage();
    agent.assign({ generation: 1, ...oneGpu });
    await reached(disk, "running");
    supervisor.sync([{ id: "w", generation: 2, image: "a", gpus: { count: 9 } }]);
    expect(disk.states("w", 2)).toEqual(["rejected"]);
    supervisor.release("w");
    await ended(disk, "w", 1);
  });

  it("that is refused on sync does not stand in the way of the next one", async () => {
    const { disk, agent, supervisor } = await stage();
    agent.assign({ generation: 1, ...oneGpu });
    await reached(disk, "running");
    supervisor.sync([{ id: "w", generation: 2, image: "a", gpus: { count: 9 } }]);
    supervisor.sync([{ id: "w", generation: 3, image: "a", ...oneGpu, ...exits(0) }]);
    await ended(disk, "w", 3);
    expect(disk.states("w", 1).at(-1)).toBe("stopped");
  });

  it("that the disk refuses costs the one before it nothing", async () => {
    const { disk, agent } = await stage();
    agent.assign({ generation: 1 });
    await reached(disk, "running");
    agent.disk.before = (_, events) => {
      if (events.some((event) => event.kind === "workload" && event.generation === 2)) throw new Error("SQLITE_FULL");
    };
    expect(() => agent.assign({ generation: 2 })).toThrow(/SQLITE_FULL/);
    await pause(50);
    expect(disk.states("w").at(-1)).toBe("running");
  });
});

describe("the complete desired set", () => {
  it("starts what is missing, keeps what matches, ends what is not in it", async () => {
    const { disk, agent, supervisor } = await stage();
    for (const id of ["keep", "drop"]) agent.assign({ id });
    await reached(disk, "running", "keep");
    await reached(disk, "running", "drop");
    supervisor.sync([
      { id: "keep", generation: 1, image: "a" },
      { id: "new", generation: 1, image: "a" },
    ]);
    await ended(disk, "drop");
    await reached(disk, "running", "new");
    expect(disk.workloadEvents("drop").at(-1)).toMatchObject({ state: "stopped", reason: "not_assigned" });
    expect(disk.states("keep").at(-1)).toBe("running");
  });

  it("gives the GPU of what it drops to what it brings, and not before it is free", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({ id: "old", ...oneGpu });
    await reached(disk, "running", "old");
    supervisor.sync([{ id: "new", generation: 1, image: "a", ...oneGpu }]);
    await reached(disk, "running", "new");
    expect(disk.states("old").at(-1)).toBe("stopped");
    expect(world.shared).toEqual([]);
  });

  it("with the same id several times takes the highest generation, once", async () => {
    const { disk, world, supervisor } = await stage();
    const entry = (generation: number) => ({ id: "w", generation, image: "a", ...exits(0) });
    supervisor.sync([entry(1), entry(3), entry(3), entry(2)]);
    await ended(disk, "w", 3);
    expect(disk.states("w", 1).at(-1)).toBe("stopped");
    expect(disk.states("w", 2)).toEqual([]);
    expect(world.count("create")).toBe(1);
    expectSound(disk);
  });

  it("refuses an entry by an event, once, and harms no other", async () => {
    const { disk, supervisor } = await stage();
    const set = [
      { id: "no-gpu", generation: 1, image: "a", gpus: { count: 9 } },
      { id: "unreadable", generation: 1, image: 7 },
      { id: "../x", generation: 1, image: "a" },
      null,
      "text",
      { id: "fine", generation: 1, image: "a", ...exits(0) },
    ];
    supervisor.sync(set);
    supervisor.sync(set);
    await ended(disk, "fine");
    const rejected = disk.workloadEvents().filter(({ state }) => state === "rejected");
    expect(rejected.map(({ workload: id, reason }) => [id, reason])).toEqual([
      ["no-gpu", "no_matching_gpu"],
      ["unreadable", "invalid_spec"],
    ]);
  });

  it("does not run again what has ended, however many others have", async () => {
    const disk = new Disk();
    const world = new World();
    const first = agentOn(disk, world);
    await first.supervisor.restore();
    const ids = Array.from({ length: 103 }, (_, n) => `job-${n}`);
    for (const id of ids.slice(0, -1)) {
      first.assign({ id, ...exits(0) });
      await ended(disk, id);
    }
    await leave(first);
    // A new agent, and one more ends before the coordinator has said a word.
    const second = agentOn(disk, world);
    await second.supervisor.restore();
    second.assign({ id: ids.at(-1) ?? "", ...exits(0) });
    await ended(disk, ids.at(-1));
    await pause(50);
    second.supervisor.sync(ids.map((id) => ({ id, generation: 1, image: "a", ...exits(0) })));
    await pause(200);
    const twice = ids.filter((id) => disk.states(id).filter((state) => state === "accepted").length > 1);
    expect(twice).toEqual([]);
  });

  it("forgets old generations of what it still wants", async () => {
    const { disk, supervisor } = await stage();
    for (let generation = 1; generation <= 130; generation++) {
      supervisor.sync([{ id: "w", generation, image: "a", ...exits(0) }]);
      await ended(disk, "w", generation);
    }
    await until(() => disk.rows.size <= 110, `rows are forgotten, ${disk.rows.size} are left`, 1000);
  });
});

describe.each([-6, 6])("a wall clock that is set by %i hours", (hours) => {
  const stepMs = hours * 3_600_000;

  it("ends nothing that may go on, and keeps nothing that has to end", async () => {
    const { disk, world, agent } = await stage();
    agent.assign({ id: "limited", maxRuntimeSeconds: 1.5 });
    agent.assign({ id: "leased", onDisconnect: { action: "stop", afterSeconds: 3600 } });
    await reached(disk, "running", "limited");
    await reached(disk, "running", "leased");
    agent.clock.silentSince = Date.now();
    agent.clock.stepMs = stepMs;
    await pause(1100);
    expect(disk.states("limited").at(-1)).toBe("running");
    expect(disk.states("leased").at(-1)).toBe("running");
    await ended(disk, "limited");
    expect(disk.workloadEvents("limited").at(-1)).toMatchObject({ reason: "max_runtime" });
    expect(disk.states("leased").at(-1)).toBe("running");
    expect(world.count("stop")).toBe(1);
  });

  it("neither shortens nor lengthens the grace of an end, also over a restart of the agent", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({ stop: { graceSeconds: 30 } as never });
    await reached(disk, "running");
    world.before = (call) => (call === "stop" ? new Promise(() => undefined) : undefined);
    supervisor.release("w");
    await until(() => world.count("stop") === 1, "it is being stopped");
    await leave(agent);
    world.before = () => undefined;
    const next = agentOn(disk, world);
    next.clock.stepMs = stepMs;
    await next.supervisor.restore();
    await until(() => world.count("stop") === 2, "it is stopped again");
    const graces = world.calls.flatMap(({ call, detail }) =>
      call === "stop" ? [(detail as { graceSeconds: number }).graceSeconds] : [],
    );
    expect(graces[0]).toBeCloseTo(30, 0);
    expect(graces[1]).toBeGreaterThan(20);
    expect(graces[1]).toBeLessThanOrEqual(30);
  });

  it('sends no stop signal that was sent: many programs take a second one as "at once"', async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({ stop: { graceSeconds: 30 } as never });
    await reached(disk, "running");
    world.before = (call) => (call === "stop" ? new Promise(() => undefined) : undefined);
    supervisor.release("w");
    await until(() => world.count("stop") === 1, "it is being stopped");
    const stops = () => world.calls.flatMap(({ call, detail }) => (call === "stop" ? [detail as ContainerStop] : []));
    stops()[0]?.onSignal?.();
    await leave(agent);
    world.before = () => undefined;
    await agentOn(disk, world).supervisor.restore();
    await until(() => world.count("stop") === 2, "it is stopped again");
    expect(stops().map(({ signal }) => signal)).toEqual(["SIGTERM", undefined]);
  });
});

describe("an engine that is away", () => {
  it("never fails what runs", async () => {
    const { disk, world, agent } = await stage();
    agent.assign({});
    await reached(disk, "running");
    world.away = true;
    agent.clock.skewMs = 3_600_000;
    await pause(600);
    expect(disk.states("w").at(-1)).toBe("running");
    const machine = world.of("w");
    if (machine !== undefined) world.exit(machine, 0);
    world.away = false;
    await ended(disk);
    expect(disk.states("w").at(-1)).toBe("succeeded");
  });

  it("delays an order to end, and does not lose it", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({});
    await reached(disk, "running");
    world.away = true;
    supervisor.release("w");
    agent.clock.skewMs = 3_600_000;
    await pause(300);
    world.away = false;
    await ended(disk);
    await until(() => world.machines.size === 0, "the container is removed");
    expect(disk.states("w").at(-1)).toBe("stopped");
  });

  it.each(["pull", "create"] as const)("fails what has not begun after a minute, at the %s", async (call) => {
    const { disk, world, agent } = await stage();
    world.before = (made) => {
      if (made === call) throw new GpunodeError("engine_unavailable", "the engine is away");
    };
    agent.assign({});
    await until(() => world.count(call) === 1, "it has tried");
    await pause(50);
    expect(disk.states("w").at(-1)).not.toBe("failed");
    agent.clock.skewMs = 61_000;
    await ended(disk);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "failed", reason: "engine_unavailable" });
  });

  it("that comes back within the minute costs nothing", async () => {
    const { disk, world, agent } = await stage();
    world.away = true;
    agent.assign(exits(0));
    await pause(100);
    world.away = false;
    await ended(disk);
    expect(disk.states("w").at(-1)).toBe("succeeded");
  });

  it("and started a container without a word, gives its GPU to nobody while that lives", async () => {
    const { disk, world, agent } = await stage();
    world.after = (call) => {
      // The container runs; the answer is lost with the engine.
      if (call === "start") world.away = true;
    };
    agent.assign({ id: "first", ...oneGpu });
    await until(() => world.away, "the engine went away");
    await pause(100);
    agent.clock.skewMs = 61_000;
    await pause(1000);
    world.after = () => undefined;
    world.before = (call) => (call === "remove" ? pause(300) : undefined);
    world.away = false;
    try {
      agent.assign({ id: "second", ...oneGpu });
    } catch (error) {
      expect(error).toMatchObject({ code: "gpu_busy" });
      return;
    }
    await reached(disk, "running", "second");
    expect(world.shared).toEqual([]);
  });
});

describe("a disk that refuses writes for a while", () => {
  it("delays, and loses nothing", async () => {
    const { disk, world, agent } = await stage();
    agent.assign({});
    await reached(disk, "running");
    agent.disk.before = () => {
      throw new Error("SQLITE_FULL");
    };
    const machine = world.of("w");
    if (machine !== undefined) world.exit(machine, 5);
    await pause(300);
    expect(disk.states("w").at(-1)).toBe("running");
    expect(world.count("remove")).toBe(0);
    agent.disk.before = () => undefined;
    await ended(disk);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "failed", exitCode: 5 });
    expectSound(disk);
  });

  it("at every single commit of a life: the life is the same", async () => {
    for (let refused = 2; refused <= 7; refused++) {
      const { disk, world, agent } = await stage();
      agent.disk.before = (commit) => {
        if (commit === refused) throw new Error("SQLITE_FULL");
      };
      agent.assign(exits(0));
      await ended(disk);
      await until(() => world.machines.size === 0, "the container is removed");
      expect(disk.states("w"), `commit ${refused} refused`).toEqual([
        "accepted",
        "pulling",
        "starting",
        "running",
        "succeeded",
      ]);
    }
  });
});

describe("an agent that leaves", () => {
  it("touches nothing, and the next one takes it up", async () => {
    const { disk, world, agent } = await stage();
    agent.assign(oneGpu);
    await reached(disk, "running");
    const before = world.calls.length;
    await leave(agent);
    await pause(50);
    expect(world.calls.slice(before).filter(({ call }) => call !== "inspect")).toEqual([]);
    expect(world.of("w")?.container.status).toBe("running");
    const next = agentOn(disk, world);
    await next.supervisor.restore();
    await pause(50);
    expect(disk.states("w")).toEqual(["accepted", "pulling", "starting", "running"]);
    expect(next.supervisor.holders().get("GPU-0")).toBe("w");
    expect(world.count("start")).toBe(1);
    next.supervisor.release("w");
    await ended(disk);
    await until(() => world.machines.size === 0, "the container is removed");
  });

  it.each(["pull", "inspect", "create", "start", "wait", "stop", "remove", "exec"] as const)(
    "during %s: the next one brings it to the same end",
    async (during) => {
      const { disk, world, agent, supervisor } = await stage();
      const hung = Promise.withResolvers<void>();
      let hangs = 0;
      world.before = (call) => (call === during && ++hangs === 1 ? hung.promise : undefined);
      agent.assign({ ...oneGpu, stop: { graceSeconds: 5, checkpoint: { exec: ["save"], timeoutSeconds: 5 } } });
      const order = () => supervisor.preempt(["w"], { cause: "owner" });
      if (["stop", "remove", "exec"].includes(during)) {
        await reached(disk, "running");
        order();
      }
      await until(() => hangs > 0, `it is at ${during}`);
      const left = leave(agent);
      await pause(20);
      hung.resolve();
      await left;
      const next = agentOn(disk, world);
      await next.supervisor.restore();
      if (!["stop", "remove", "exec"].includes(during)) {
        await reached(disk, "running");
        next.supervisor.preempt(["w"], { cause: "owner" });
      }
      await ended(disk);
      await until(() => world.machines.size === 0, "the container is removed");
      expect(disk.states("w")).toEqual(["accepted", "pulling", "starting", "running", "stopping", "preempted"]);
      expect(world.shared).toEqual([]);
    },
  );

  it("does not wait for a slow reader of the last lines", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({});
    await reached(disk, "running");
    const end = new AbortController();
    const lines = supervisor.output.open("w", { follow: true, signal: end.signal })[Symbol.asyncIterator]();
    await lines.next();
    const machine = world.of("w");
    if (machine !== undefined) world.exit(machine, 0);
    await ended(disk);
    await pause(20);
    await leave(agent);
    end.abort();
    await lines.return?.();
  });
});

describe("a killed agent", () => {
  /** Lives a life, and kills the agent at commit `at`: before it is on the disk, or right after. */
  async function lifeWithCrash(
    input: Partial<WorkloadInput>,
    order: boolean,
    crash: { at: number; written: boolean } | undefined,
  ) {
    const disk = new Disk();
    const world = new World();
    const agent = agentOn(disk, world);
    await agent.supervisor.restore();
    let crashed = false;
    const kill = (commit: number) => {
      if (commit !== crash?.at) return;
      crashed = true;
      agent.line.cut = true;
      throw new Error("killed");
    };
    if (crash?.written === true) agent.disk.after = kill;
    else agent.disk.before = kill;
    const over = () => disk.states("w").some((state) => isTerminal(state as never)) && world.machines.size === 0;
    const want = workload(input);
    const orderSoon = (supervisor: Supervisor) => {
      if (!order || !disk.states("w").includes("running")) return;
      const record = supervisor.records().find(({ id }) => id === "w");
      if (record !== undefined && record.stop === undefined && !isTerminal(record.state))
        supervisor.preempt(["w"], { cause: "owner" });
    };
    const attempt = (act: () => void) => {
      try {
        act();
      } catch (error) {
        if (!crashed) throw error;
      }
    };
    attempt(() => agent.supervisor.assign(want));
    await until(() => {
      if (!crashed) attempt(() => orderSoon(agent.supervisor));
      return crashed || over();
    }, "it is over, or the agent is dead");
    await leave(agent);
    if (!crashed) return { disk, world, crashed };
    const next = agentOn(disk, world);
    await next.supervisor.restore();
    next.supervisor.sync([want]);
    await until(() => {
      orderSoon(next.supervisor);
      return over();
    }, "it is over after the crash");
    await leave(next);
    return { disk, world, crashed };
  }

  it.each([
    { name: "a job", input: exits(0), order: false },
    { name: "a failing job", input: exits(9), order: false },
    {
      name: "a restarted job",
      input: { ...exits(1, 0), restart: { policy: "on-failure" as const, maxRetries: 1 } },
      order: false,
    },
    { name: "a job with secrets", input: { ...exits(0), secretEnv: { KEY: "s3cret" } }, order: false },
    {
      name: "a preempted server",
      input: { ...oneGpu, stop: { graceSeconds: 2, checkpoint: { exec: ["save"], timeoutSeconds: 5 } } },
      order: true,
    },
  ])("at any commit of $name: the same end, told once, and no container left", async ({ input, order }) => {
    const calm = await lifeWithCrash(input, order, undefined);
    const problems: string[] = [];
    const lives = [];
    for (let at = 1; at <= 12; at++) {
      for (const written of [false, true]) {
        lives.push(
          (async () => {
            const { disk, world } = await lifeWithCrash(input, order, { at, written });
            const what = `killed ${written ? "after" : "before"} commit ${at}`;
            expectSound(disk);
            const last = (from: Disk) => from.workloadEvents("w").at(-1);
            if (last(disk)?.state !== last(calm.disk)?.state) problems.push(`${what}: ends ${last(disk)?.state}`);
            const phases = disk.events.flatMap((event) => (event.kind === "preemption" ? [event.phase] : []));
            for (const phase of new Set(phases)) {
              if (phases.filter((other) => other === phase).length > 1)
                problems.push(`${what}: ${phase} is told twice`);
            }
            if (world.shared.length > 0) problems.push(`${what}: two on one GPU`);
          })(),
        );
      }
    }
    await Promise.all(lives);
    expect(problems).toEqual([]);
  });
});

describe("what an earlier agent left", () => {
  it("without the secrets it came with waits for them, and they never touch the disk", async () => {
    const { disk, world, agent } = await stage();
    world.before = (call) => (call === "pull" ? new Promise(() => undefined) : undefined);
    const input = {
      ...exits(0),
      secretEnv: { API_KEY: "sk-very-secret" },
      registryAuth: { username: "u", password: "hunter2" },
    };
    agent.assign(input);
    await until(() => world.count("pull") === 1, "it pulls");
    await leave(agent);
    world.before = () => undefined;
    const next = agentOn(disk, world);
    await next.supervisor.restore();
    await pause(100);
    expect(world.count("create")).toBe(0);
    let given: string | Secret | undefined;
    world.before = (call, id) => {
      if (call === "start") given = world.find(id)?.spec.env.API_KEY;
    };
    next.supervisor.sync([{ id: "w", generation: 1, image: "a", ...input }]);
    await ended(disk);
    expect(given instanceof Secret && given.reveal()).toBe("sk-very-secret");
    const written = JSON.stringify([[...disk.rows], disk.events]);
    expect(written).not.toContain("sk-very-secret");
    expect(written).not.toContain("hunter2");
  });

  it("is ended also where its secrets never come", async () => {
    const { disk, world, agent } = await stage();
    world.before = (call) => (call === "pull" ? new Promise(() => undefined) : undefined);
    agent.assign({ secretEnv: { A: "b" } });
    await until(() => world.count("pull") === 1, "it pulls");
    await leave(agent);
    const next = agentOn(disk, world);
    await next.supervisor.restore();
    await pause(20);
    next.supervisor.sync([]);
    await ended(disk);
    expect(disk.states("w").at(-1)).toBe("stopped");
  });

  it("without a record is removed; other people's containers are not", async () => {
    const disk = new Disk();
    const world = new World();
    const engine = world.connect();
    const make = (name: string, labels: Record<string, string>) =>
      engine.create({
        name,
        labels,
        image: "a",
        env: {},
        gpus: [],
        ...{ cpus: 1, memoryMiB: 256, shmMiB: 64, pids: 100, diskMiB: 1024 },
        ports: [],
        hostIp: "",
        volumes: [],
        stopSignal: "",
      });
    await make("stray", { [LABEL_NODE]: NODE_ID, [LABEL_WORKLOAD]: "stray", [LABEL_GENERATION]: "1" });
    await make("bare", { [LABEL_NODE]: NODE_ID });
    await make("foreign", { [LABEL_NODE]: "another", [LABEL_WORKLOAD]: "x", [LABEL_GENERATION]: "1" });
    await agentOn(disk, world).supervisor.restore();
    const names = () => [...world.machines.values()].map(({ container }) => container.name);
    await until(() => names().join() === "foreign", "ours are gone");
    expect(disk.workloadEvents("stray")).toMatchObject([{ generation: 1, state: "lost", reason: "record_lost" }]);
  });

  it("and cannot be read any more is told as lost, so that nobody waits for it", async () => {
    const disk = new Disk();
    disk.rows.set("w#3", JSON.stringify({ id: "w", generation: 3, state: "running", spec: "from the future" }));
    disk.rows.set("x#1", "7");
    const changed: string[] = [];
    const onChange = ({ id, state }: { id: string; state: string }) => void changed.push(`${id} ${state}`);
    await agentOn(disk, new World(), { changed: onChange }).supervisor.restore();
    expect(changed.sort()).toEqual(["w lost", "x lost"]);
    expect([...disk.rows.keys()].sort()).toEqual(["w#3", "x#1"]);
    expect(disk.workloadEvents("w")).toMatchObject([{ generation: 3, state: "lost" }]);
    expect(disk.workloadEvents("x")).toMatchObject([{ generation: 1, state: "lost" }]);
  });

  it("and is lost is not run again in the same generation, but in a higher one", async () => {
    const disk = new Disk();
    disk.rows.set("w#3", "7");
    disk.rows.set("nonsense", "7");
    const agent = agentOn(disk, new World());
    await agent.supervisor.restore();
    expect([...disk.rows.keys()]).toEqual(["w#3"]);
    agent.supervisor.sync([workload({ generation: 3, ...exits(0) })]);
    await pause(50);
    expect(disk.states("w", 3)).toEqual(["lost"]);
    agent.supervisor.sync([workload({ generation: 4, ...exits(0) })]);
    await until(() => disk.states("w", 4).at(-1) === "succeeded", "the next generation runs");
  });

  it("and whose container is gone fails with a reason", async () => {
    const { disk, world, agent } = await stage();
    agent.assign({});
    await reached(disk, "running");
    await leave(agent);
    world.machines.clear();
    await agentOn(disk, world).supervisor.restore();
    await ended(disk);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "failed", reason: "container_gone" });
  });
});

describe("a draining node", () => {
  it("takes nothing new and keeps what it has", async () => {
    const held: ReturnType<SupervisorDoors["held"]> = { gpus: new Map() };
    const { disk, agent } = await stage({ held: () => held });
    agent.assign({});
    await reached(disk, "running");
    held.node = "drained by its owner";
    expect(() => agent.assign({ id: "x" })).toThrow(expect.objectContaining({ code: "draining" }) as Error);
    agent.assign({});
    delete held.node;
    agent.assign({ id: "x", ...exits(0) });
    await ended(disk, "x");
    expect(disk.states("w").at(-1)).toBe("running");
  });
});

describe("a desired set on a bad day", () => {
  const want = (id: string, input: Partial<WorkloadInput> = {}) => ({ id, generation: 1, image: "a", ...input });

  it("of the engine is taken when that is back, and is no refusal", async () => {
    let problem: string | undefined = "the engine is away";
    const { disk, supervisor } = await stage({ engineProblem: () => problem });
    supervisor.sync([want("w", exits(0)), want("dropped")]);
    expect(disk.events).toEqual([]);
    supervisor.release("dropped");
    problem = undefined;
    await until(() => disk.states("w").at(-1) === "succeeded", "it ran", 8000);
    expect(disk.states("dropped")).toEqual([]);
  }, 10_000);

  it("of the disk loses one entry for a while and none for good", async () => {
    const { disk, agent, supervisor } = await stage();
    agent.assign({ id: "old", ...oneGpu });
    await reached(disk, "running", "old");
    const refused = new Set<string>();
    agent.disk.before = (_, events) => {
      for (const event of events) {
        if (event.kind !== "workload" || event.state !== "accepted" || event.workload !== "first") continue;
        if (refused.has(event.workload)) continue;
        refused.add(event.workload);
        throw new Error("SQLITE_FULL");
      }
    };
    supervisor.sync([want("first", exits(0)), want("second", exits(0))]);
    expect(refused.size).toBe(1);
    await ended(disk, "old");
    await ended(disk, "second");
    await until(() => disk.states("first").at(-1) === "succeeded", "it ran", 8000);
  }, 10_000);

  it("of the disk does not refuse what needs the GPU of one that could not be told to end", async () => {
    const { disk, world, agent, supervisor } = await stage();
    agent.assign({ id: "old", ...oneGpu });
    await reached(disk, "running", "old");
    let refusals = 1;
    agent.disk.before = () => {
      if (refusals-- > 0) throw new Error("SQLITE_FULL");
    };
    supervisor.sync([want("new", { ...oneGpu, ...exits(0) })]);
    await until(() => disk.states("new").at(-1) === "succeeded", "it ran", 8000);
    expect(disk.workloadEvents("old").at(-1)).toMatchObject({ state: "stopped", reason: "not_assigned" });
    expect(world.shared).toEqual([]);
  }, 10_000);

  it("shows its refusals to those who watch", async () => {
    const shown: string[] = [];
    const { supervisor } = await stage({ changed: ({ id, state }) => shown.push(`${id} ${state}`) });
    supervisor.sync([want("w", { gpus: { count: 9 } })]);
    expect(shown).toEqual(["w rejected"]);
  });
});

describe("the end of a workload", () => {
  it("leaves its GPU free at once, also for the agent that comes after", async () => {
    const { disk, world, agent } = await stage();
    agent.assign({ id: "old", ...oneGpu, ...exits(0) });
    await ended(disk, "old");
    await until(() => world.machines.size === 0, "the container is removed");
    await leave(agent);
    world.before = (call) => (call === "inspect" ? pause(100) : undefined);
    const next = agentOn(disk, world);
    await next.supervisor.restore();
    expect(next.supervisor.holders().size).toBe(0);
    next.assign({ id: "new", ...oneGpu, ...exits(0) });
    await ended(disk, "new");
  });

  it("that it came to itself, before the signal of an order, is its own", async () => {
    const told = Promise.withResolvers<boolean>();
    const { disk, world, agent, supervisor } = await stage();
    agent.doors.journal.told = () => told.promise;
    agent.assign({});
    await reached(disk, "running");
    supervisor.preempt(["w"], { cause: "owner" });
    await pause(20);
    // It ends while the notice is still on its way; the order is then looked at once more.
    const machine = world.of("w");
    if (machine !== undefined) world.exit(machine, 0);
    supervisor.release("w", 0);
    await ended(disk);
    told.resolve(true);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "succeeded", exitCode: 0 });
    expect(disk.events.filter((event) => event.kind === "preemption").map(({ phase }) => phase)).toEqual([
      "notice",
      "finished",
    ]);
  });

  it("takes its health with it", async () => {
    const { disk, world, agent } = await stage();
    agent.assign({ health: { exec: ["ok"] } });
    await until(() => disk.workloadEvents("w").some(({ healthy }) => healthy === true), "it is healthy");
    const machine = world.of("w");
    if (machine !== undefined) world.exit(machine, 0);
    await ended(disk);
    expect(disk.workloadEvents("w").at(-1)).not.toHaveProperty("healthy");
  });

  it("does not wait for those who are told of it, nor for their mistakes", async () => {
    const { disk, agent } = await stage({
      changed: () => {
        throw new Error("a mistake elsewhere");
      },
    });
    agent.assign(exits(0));
    await ended(disk);
    expect(disk.states("w").at(-1)).toBe("succeeded");
  });

  it("given up on and running all the same lets the agent leave while it is being stopped", async () => {
    const { world, agent, disk } = await stage();
    world.after = (call) => {
      if (call === "start") world.away = true;
    };
    agent.assign(oneGpu);
    await until(() => world.away, "the engine went away");
    await pause(100);
    agent.clock.skewMs = 61_000;
    await ended(disk);
    world.after = () => undefined;
    world.before = (call) => (call === "stop" ? new Promise(() => undefined) : undefined);
    world.away = false;
    await until(() => world.count("stop") === 1, "it is being stopped", 8000);
    expect(agent.supervisor.holders().get("GPU-0")).toBe("w");
    await leave(agent);
  }, 12_000);
});

describe("an image", () => {
  it("that was pruned between its pull and the create is pulled again", async () => {
    const { disk, world, agent } = await stage();
    let prunes = 1;
    world.before = (call) => {
      if (call === "create" && prunes-- > 0) throw new GpunodeError("pull_failed", "no such image");
    };
    agent.assign(exits(0));
    await ended(disk);
    expect(disk.states("w").at(-1)).toBe("succeeded");
    expect(world.count("pull")).toBe(2);
  });

  it.each([
    { env: {}, state: "rejected" },
    { env: { NVIDIA_DISABLE_REQUIRE: "1" }, state: "succeeded" },
  ])("that demands a newer driver ends as $state with the environment $env", async ({ env, state }) => {
    const { disk, agent } = await stage({ driver: () => ({ cudaVersion: "12.0" }) });
    const { pull } = agent.doors.engine;
    agent.doors.engine.pull = async (...args) => ({
      ...(await pull(...args)),
      env: ["NVIDIA_REQUIRE_CUDA=cuda>=13.0"],
    });
    agent.assign({ ...oneGpu, env: { EXITS: "0", ...env } });
    await ended(disk);
    expect(disk.states("w").at(-1)).toBe(state);
  });
});

describe("a refused replacement", () => {
  it("does not hide the output of the generation that runs", async () => {
    const { disk, agent, supervisor } = await stage();
    agent.assign({ generation: 1 });
    await reached(disk, "running");
    supervisor.sync([{ id: "w", generation: 2, image: "a", gpus: { count: 9 } }]);
    const lines: string[] = [];
    const signal = new AbortController().signal;
    for await (const { data } of supervisor.output.open("w", { follow: false, signal })) lines.push(data.toString());
    expect(lines).toEqual(["hello\n"]);
  });
});

describe("a preemption of what is being released with a long grace", () => {
  it("brings its end forward to its own grace", async () => {
    const { disk, world, agent, supervisor } = await stage();
    let stubborn = true;
    world.before = (call) => (call === "stop" && stubborn ? new Promise(() => undefined) : undefined);
    agent.assign({ stop: { graceSeconds: 5 } });
    await reached(disk, "running");
    supervisor.release("w", 6000);
    await until(() => world.count("stop") === 1, "it is being stopped");
    stubborn = false;
    expect(supervisor.preempt(["w"], { cause: "owner" })).toBe(0);
    await ended(disk);
    const last = world.calls.filter(({ call }) => call === "stop").at(-1)?.detail as ContainerStop | undefined;
    expect(last?.graceSeconds).toBeLessThanOrEqual(5);
    expect(disk.workloadEvents("w").at(-1)).toMatchObject({ state: "stopped", reason: "released" });
  });
});
