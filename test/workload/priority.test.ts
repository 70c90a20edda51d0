import { afterEach, describe, expect, it } from "vitest";
import { GpunodeError } from "../../src/protocol/errors.ts";
import type { WorkloadInput } from "../../src/protocol/workload.ts";
import type { SupervisorDoors } from "../../src/workload/supervisor.ts";
import { type Agent, agentOn, Disk, gpu, leave, leaveAll, POLICY, reached, until, World } from "./stage.ts";

/*
 * Priorities in the set of workloads. What a workload's life is made of otherwise, supervisor.test.ts tells.
 */

interface Stage {
  disk: Disk;
  world: World;
  agent: Agent;
  assign(id: string, input?: Partial<WorkloadInput>): void;
  refusal(id: string, input?: Partial<WorkloadInput>): GpunodeError;
}

interface StageOptions {
  gpus?: number;
  policy?: Partial<SupervisorDoors["policy"]>;
  held?: ReturnType<SupervisorDoors["held"]>;
  disk?: Disk;
  world?: World;
}

/** An agent with so many GPUs; what it is given asks for one of them. */
async function stage(options: StageOptions = {}): Promise<Stage> {
  const { disk = new Disk(), world = new World(), gpus = 1, held = { gpus: new Map() } } = options;
  const agent = agentOn(disk, world, {
    policy: { ...POLICY, hostPorts: { from: 38_200, to: 38_299 }, ...options.policy },
    gpus: () => Array.from({ length: gpus }, (_, index) => gpu(index)),
    held: () => held,
  });
  await agent.supervisor.restore();
  const assign: Stage["assign"] = (id, input = {}) =>
    agent.assign({ id, gpus: { count: 1 }, stop: { graceSeconds: 5 }, ...input });
  return {
    disk,
    world,
    agent,
    assign,
    refusal: (id, input) => {
      try {
        assign(id, input);
      } catch (error) {
        if (error instanceof GpunodeError) return error;
        throw error;
      }
      throw new Error(`${id} was taken in`);
    },
  };
}

/** Stops take until that is resolved. */
function slowStops(world: World): PromiseWithResolvers<void> {
  const stopping = Promise.withResolvers<void>();
  world.before = (call) => (call === "stop" ? stopping.promise : undefined);
  return stopping;
}

afterEach(leaveAll);

const urgent = { priority: 500 };

describe("a workload that finds no free GPU", () => {
  it("takes that of a lower priority, which has notice, its checkpoint and its grace first", async () => {
    const at = await stage();
    const stopping = slowStops(at.world);
    at.assign("batch", { stop: { graceSeconds: 5, checkpoint: { exec: ["save"], timeoutSeconds: 30 } } });
    await reached(at.disk, "running", "batch");
    const before = Date.now();
    at.assign("urgent", urgent);
    expect(at.agent.supervisor.holders().get("GPU-0")).toBe("urgent");
    const notice = at.disk.events.at(-2);
    expect(notice).toMatchObject({
      kind: "preemption",
      phase: "notice",
      cause: "priority",
      workloads: ["batch"],
      gpus: ["GPU-0"],
      message: "workload urgent of priority 500 takes its GPU",
    });
    const deadline = notice?.kind === "preemption" ? Date.parse(notice.deadline ?? "") - before : Number.NaN;
    expect(deadline).toBeGreaterThanOrEqual(35_000);
    expect(deadline).toBeLessThan(60_000);

    await reached(at.disk, "stopping", "batch");
    await reached(at.disk, "starting", "urgent");
    expect(at.world.running()).toEqual(["gpunode-nnnnnn-batch-1"]);
    stopping.resolve();
    await reached(at.disk, "running", "urgent");
    expect(at.disk.phases()).toEqual(["notice batch", "checkpointed batch", "finished batch"]);
    expect(at.disk.workloadEvents("batch").at(-1)).toMatchObject({
      state: "preempted",
      reason: "priority",
      message: "workload urgent of priority 500 takes its GPU",
    });
    expect(at.world.shared).toEqual([]);
    expect(at.world.running()).toEqual(["gpunode-nnnnnn-urgent-1"]);
  });

  it("takes from the lowest priority and of those the youngest, with one notice for all", async () => {
    const at = await stage({ gpus: 4 });
    for (const [id, priority] of [
      ["old", 10],
      ["young", 10],
      ["middle", 50],
      ["high", 400],
    ] as const) {
      at.assign(id, { priority });
      await reached(at.disk, "running", id);
    }
    at.assign("one", urgent);
    await reached(at.disk, "running", "one");
    expect(at.disk.workloadEvents("young").at(-1)?.state).toBe("preempted");
    at.assign("two", { ...urgent, gpus: { count: 2 } });
    await reached(at.disk, "running", "two");
    expect(at.disk.phases().filter((phase) => phase.startsWith("notice"))).toEqual([
      "notice young",
      "notice old,middle",
    ]);
    expect(at.world.running().sort()).toEqual([
      "gpunode-nnnnnn-high-1",
      "gpunode-nnnnnn-one-1",
      "gpunode-nnnnnn-two-1",
    ]);
    expect(at.world.shared).toEqual([]);
  });

  it("takes from one that has not started yet, and from one that waits for a GPU itself", async () => {
    const at = await stage();
    const stopping = slowStops(at.world);
    at.assign("batch");
    await reached(at.disk, "running", "batch");
    at.assign("urgent", urgent);
    at.assign("top", { priority: 900 });
    await reached(at.disk, "preempted", "urgent");
    expect(at.disk.states("urgent")).not.toContain("running");
    stopping.resolve();
    await reached(at.disk, "running", "top");
    expect(at.world.shared).toEqual([]);
    expect(at.disk.phases()).toEqual(["notice batch", "notice urgent", "finished urgent", "finished batch"]);
  });

  it("needs nobody's where one is free, or is given back already", async () => {
    const at = await stage({ gpus: 2 });
    at.assign("a");
    at.assign("urgent", urgent);
    await reached(at.disk, "running", "a");
    await reached(at.disk, "running", "urgent");
    at.agent.supervisor.release("a");
    at.assign("more", { priority: 900 });
    await reached(at.disk, "running", "more");
    expect(at.disk.phases()).toEqual([]);
    expect(at.disk.states("urgent").at(-1)).toBe("running");
  });

  it("is no reason to stop its own older generation twice: that one is replaced", async () => {
    const at = await stage();
    at.assign("job");
    await reached(at.disk, "running", "job");
    at.assign("job", { ...urgent, generation: 2 });
    await until(() => at.world.running().includes("gpunode-nnnnnn-job-2"), "the new generation runs");
    expect(at.disk.phases()).toEqual([]);
    expect(at.disk.events).toContainEqual(
      expect.objectContaining({ generation: 1, state: "stopped", reason: "replaced" }),
    );
  });
});

describe("nobody is stopped", () => {
  it.each<[string, Partial<WorkloadInput>, Partial<WorkloadInput>, Partial<SupervisorDoors["policy"]>, string, RegExp]>(
    [
      ["by an equal", { priority: 500 }, urgent, {}, "gpu_busy", /held by batch$/],
      [
        "who is not preemptible",
        { preemptible: false },
        urgent,
        {},
        "gpu_busy",
        /held by batch; of lower priority than 500, but not preemptible: batch$/,
      ],
      ["where the provider does not want it", {}, urgent, { priorityPreemption: false }, "gpu_busy", /held by batch$/],
      ["for an image that is not allowed", {}, { ...urgent, image: "b" }, { images: ["a"] }, "image_not_allowed", /b/],
      [
        "for memory that is not there even then",
        { resources: { memoryMiB: 8000 } },
        { ...urgent, resources: { memoryMiB: 17_000 } },
        {},
        "insufficient_memory",
        /17000 MiB/,
      ],
      [
        "for ports that are not there even then",
        {},
        { ...urgent, ports: [{ container: 1 }, { container: 2 }] },
        { hostPorts: { from: 38_200, to: 38_200 } },
        "policy_denied",
        /2 ports asked for/,
      ],
      [
        "for more GPUs than there are",
        {},
        { ...urgent, gpus: { count: 3 } },
        {},
        "no_matching_gpu",
        /3 GPUs asked for/,
      ],
    ],
  )("%s", async (_, batch, more, policy, code, says) => {
    const at = await stage({ policy });
    at.assign("batch", batch);
    await reached(at.disk, "running", "batch");
    const error = at.refusal("urgent", more);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(says);
    expect(at.disk.states("batch").at(-1)).toBe("running");
    expect(at.disk.states("urgent")).toEqual([]);
    expect(at.agent.supervisor.records().map(({ id, stop }) => [id, stop])).toEqual([["batch", undefined]]);
  });

  it("for a GPU that its owner keeps from being lent, whoever is still on it", async () => {
    const held = { gpus: new Map<string, string>() };
    const { disk, assign, refusal } = await stage({ held });
    assign("batch", { priority: 1 });
    await reached(disk, "running", "batch");
    held.gpus.set("GPU-0", "taken back by its owner");
    expect(refusal("urgent", { priority: 1000 }).message).toMatch(/held by taken back by its owner/);
    expect(disk.phases()).toEqual([]);
  });

  it("who would not free enough", async () => {
    const at = await stage({ gpus: 2 });
    at.assign("batch");
    at.assign("top", { priority: 900 });
    await reached(at.disk, "running", "batch");
    const error = at.refusal("urgent", { ...urgent, gpus: { count: 2 } });
    expect(error.message).toMatch(/; stopping those of lower priority than 500 \(batch\) would not free enough$/);
    expect(at.disk.states("batch").at(-1)).toBe("running");
  });

  it("where the disk refuses to write it down; it can be asked again", async () => {
    const at = await stage();
    at.assign("batch");
    await reached(at.disk, "running", "batch");
    at.agent.disk.before = () => {
      throw new Error("SQLITE_FULL");
    };
    expect(() => at.assign("urgent", urgent)).toThrow("SQLITE_FULL");
    at.agent.disk.before = () => undefined;
    expect(at.disk.phases()).toEqual([]);
    expect(at.agent.supervisor.holders().get("GPU-0")).toBe("batch");
    at.assign("urgent", urgent);
    await reached(at.disk, "running", "urgent");
  });
});

describe("memory and count are judged with the victims gone", () => {
  it.each<[string, Partial<WorkloadInput>, Partial<SupervisorDoors["policy"]>]>([
    ["memory", { resources: { memoryMiB: 12_000 } }, {}],
    ["the number of workloads", {}, { maxWorkloads: 1 }],
    ["ports", { ports: [{ container: 1 }] }, { hostPorts: { from: 38_210, to: 38_210 } }],
  ])("%s", async (_, input, policy) => {
    const at = await stage({ policy });
    at.assign("batch", input);
    await reached(at.disk, "running", "batch");
    at.assign("urgent", { ...urgent, ...input });
    await reached(at.disk, "running", "urgent");
    expect(at.disk.workloadEvents("batch").at(-1)?.state).toBe("preempted");
  });

  it("and of as many victims those whose going is enough are taken", async () => {
    const at = await stage({ gpus: 2 });
    at.assign("small", { priority: 1, resources: { memoryMiB: 1000 } });
    at.assign("large", { priority: 2, resources: { memoryMiB: 12_000 } });
    await reached(at.disk, "running", "large");
    at.assign("urgent", { ...urgent, resources: { memoryMiB: 8000 } });
    await reached(at.disk, "running", "urgent");
    expect(at.disk.states("small").at(-1)).toBe("running");
    expect(at.disk.workloadEvents("large").at(-1)?.state).toBe("preempted");
  });
});

describe("a killed agent", () => {
  /** Lives through a take-over, killed at commit `at` counted from the assignment: before it is on the disk, or right after. */
  async function lifeWithCrash(crash: { at: number; written: boolean }) {
    const first = await stage();
    first.assign("batch");
    await reached(first.disk, "running", "batch");
    let commits = 0;
    let crashed = false;
    const kill = () => {
      commits += 1;
      if (commits !== crash.at) return;
      crashed = true;
      first.agent.line.cut = true;
      throw new Error("killed");
    };
    if (crash.written) first.agent.disk.after = kill;
    else first.agent.disk.before = kill;
    try {
      first.assign("urgent", urgent);
    } catch {
      // The agent is dead.
    }
    await until(() => crashed || first.disk.states("urgent").includes("running"), "it runs, or the agent is dead");
    await leave(first.agent);
    const { disk, world } = first;
    return { crashed, next: await stage({ disk, world }), disk, world };
  }

  it("before the assignment is on the disk has told nothing and stopped nobody", async () => {
    const { disk, world, next } = await lifeWithCrash({ at: 1, written: false });
    expect(disk.phases()).toEqual([]);
    expect(next.agent.supervisor.records().map(({ id, state, stop }) => [id, state, stop])).toEqual([
      ["batch", "running", undefined],
    ]);
    next.assign("urgent", urgent);
    await reached(next.disk, "running", "urgent");
    expect(disk.phases()).toEqual(["notice batch", "finished batch"]);
    expect(world.shared).toEqual([]);
  });

  it("at any commit after it: the one ends as it was told, once, and the other runs", async () => {
    let crashes = 0;
    for (let at = 1; at <= 8; at++) {
      for (const written of [false, true]) {
        if (at === 1 && !written) continue;
        const { disk, world, next, crashed } = await lifeWithCrash({ at, written });
        const what = `killed ${written ? "after" : "before"} commit ${at}`;
        if (crashed) crashes += 1;
        await reached(next.disk, "running", "urgent");
        await until(() => next.world.running().join() === "gpunode-nnnnnn-urgent-1", what);
        expect(disk.phases(), what).toEqual(["notice batch", "finished batch"]);
        expect(disk.workloadEvents("batch").at(-1), what).toMatchObject({ state: "preempted", reason: "priority" });
        expect(disk.states("batch").filter((state) => state === "preempted")).toHaveLength(1);
        expect(world.shared, what).toEqual([]);
      }
    }
    expect(crashes).toBeGreaterThan(8);
  });
});
