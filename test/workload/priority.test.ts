import { afterEach, describe, expect, it, vi } from "vitest";
import { GpunodeError } from "../../src/protocol/errors.ts";
import type { DurableEvent, WorkloadEvent } from "../../src/protocol/event.ts";
import type { Gpu } from "../../src/protocol/gpu.ts";
import { type WorkloadInput, Workload as WorkloadSchema } from "../../src/protocol/workload.ts";
import type { ContainerState, Engine, Journal, JournalRow } from "../../src/workload/needs.ts";
import { Supervisor, type SupervisorDoors } from "../../src/workload/supervisor.ts";

/*
 * Priorities in the set of workloads, between a disk and a container engine that live in memory, so that the agent can be cut off at
 * any commit. What a workload's life is made of otherwise, supervisor.test.ts tells.
 */

/** The disk: what lies on it survives the agent. */
class Disk {
  readonly rows = new Map<string, string>();
  readonly events: DurableEvent[] = [];

  states(id: string): string[] {
    return this.events.flatMap((event) => (event.kind === "workload" && event.workload === id ? [event.state] : []));
  }

  last(id: string): WorkloadEvent | undefined {
    return this.events.filter((event) => event.kind === "workload" && event.workload === id).at(-1) as never;
  }

  /** Phases of preemptions with those they befell. */
  phases(): string[] {
    return this.events.flatMap((event) =>
      event.kind === "preemption" ? [`${event.phase} ${event.workloads.join()}`] : [],
    );
  }
}

/** The engine: every container runs until it is stopped, and takes a moment for that. */
class World {
  readonly containers = new Map<string, ContainerState>();
  /** GPUs that two containers had at once. */
  readonly shared: string[] = [];
  readonly #down = new Map<string, PromiseWithResolvers<void>>();
  /** What a stop waits for. */
  stopping: Promise<void> = Promise.resolve();

  running(): string[] {
    const up = [...this.containers.values()].filter(({ status }) => status === "running");
    return up.map(({ name }) => name);
  }

  connect(line: { cut: boolean }): Engine {
    const answer = async <T>(act: () => T | Promise<T>): Promise<T> => {
      await new Promise((resolve) => setImmediate(resolve));
      const gone = () => new GpunodeError("engine_unavailable", "the agent was killed");
      if (line.cut) throw gone();
      const result = await act();
      if (line.cut) throw gone();
      return result;
    };
    const exit = (id: string) => {
      const container = this.containers.get(id);
      if (container?.status !== "running") return;
      this.containers.set(id, { ...container, status: "exited", exitCode: 143, finishedAt: new Date().toISOString() });
      this.#down.get(id)?.resolve();
    };
    const image = { id: "sha256:i", digest: "sha256:d", sizeBytes: 1, architecture: "amd64", os: "linux", user: "" };
    return {
      info: () => Promise.resolve({ kind: "docker", available: true }),
      pull: () => answer(() => ({ ...image, env: [] })),
      image: () => Promise.resolve({ ...image, env: [] }),
      images: () => Promise.resolve([]),
      create: ({ name, labels, gpus }) =>
        answer(() => {
          const base = { id: name, name, labels, gpus, pid: 0, exitCode: 0, oomKilled: false, error: "" };
          if (!this.containers.has(name)) this.containers.set(name, { ...base, status: "created" });
          this.#down.set(name, Promise.withResolvers());
          return name;
        }),
      start: (id) =>
        answer(() => {
          const container = this.containers.get(id);
          if (container === undefined || container.status === "running") return;
          const others = [...this.containers.values()].filter(({ status }) => status === "running");
          this.shared.push(...container.gpus.filter((uuid) => others.some(({ gpus }) => gpus.includes(uuid))));
          this.containers.set(id, { ...container, status: "running", startedAt: new Date().toISOString() });
        }),
      stop: (id) => answer(() => this.stopping.then(() => exit(id))),
      kill: (id) => answer(() => exit(id)),
      remove: (id) => answer(() => void this.containers.delete(id)),
      inspect: (id) => answer(() => this.containers.get(id)),
      list: () => answer(() => [...this.containers.values()]),
      wait: async (id, signal) => {
        const cut = Promise.withResolvers<never>();
        const abort = () => cut.reject(signal.reason);
        signal.addEventListener("abort", abort);
        try {
          if (this.containers.get(id)?.status === "running") {
            await Promise.race([this.#down.get(id)?.promise, cut.promise]);
          }
          return await answer(() => this.containers.get(id));
        } finally {
          signal.removeEventListener("abort", abort);
        }
      },
      logs: () => Promise.reject(new Error("nobody reads here")) as never,
      usage: () => Promise.resolve(undefined),
      diskAccount: () => Promise.resolve({ containers: [], volumeBytes: new Map() }),
      exec: () => answer(() => ({ exitCode: 0, output: "" })),
      putFile: () => answer(() => undefined),
    };
  }
}

function gpu(index: number): Gpu {
  const health = { status: "healthy" as const, reasons: [] };
  const rest = { vendor: "nvidia" as const, name: "Test", vramMiB: 1000, links: [], health, allocatable: true };
  return { index, uuid: `GPU-${index}`, ...rest };
}

interface Stage {
  disk: Disk;
  world: World;
  supervisor: Supervisor;
  /** What the journal does before and after each commit, counted from 1. */
  hooks: { before(commit: number): void; after(commit: number): void };
  kill(): void;
  commits(): number;
  assign(id: string, input?: Partial<WorkloadInput>): void;
  refusal(id: string, input?: Partial<WorkloadInput>): GpunodeError;
}

const open: Supervisor[] = [];

async function stage(
  options: {
    gpus?: number;
    policy?: Partial<SupervisorDoors["policy"]>;
    held?: ReturnType<SupervisorDoors["held"]>;
    disk?: Disk;
    world?: World;
  } = {},
): Promise<Stage> {
  const { disk = new Disk(), world = new World() } = options;
  const line = { cut: false };
  const hooks: Stage["hooks"] = { before: () => undefined, after: () => undefined };
  let commits = 0;
  const journal: Journal = {
    commit({ put, remove, events }) {
      if (line.cut) throw new Error("this agent was killed");
      const commit = ++commits;
      hooks.before(commit);
      for (const { key, body } of put) disk.rows.set(key, JSON.stringify(body));
      for (const key of remove) disk.rows.delete(key);
      const told = events.map((event, n) => ({
        ...event,
        seq: disk.events.length + n + 1,
        at: new Date().toISOString(),
      }));
      disk.events.push(...told);
      hooks.after(commit);
      return told;
    },
    rows: () => [...disk.rows].map(([key, body]): JournalRow => ({ key, body: JSON.parse(body) as unknown })),
    told: () => Promise.resolve(true),
  };
  const nothing = () => undefined;
  const supervisor = new Supervisor({
    engine: world.connect(line),
    journal,
    log: { debug: nothing, info: nothing, warn: nothing, error: nothing },
    keptLogs: { keep: () => Promise.resolve(), read: () => Promise.resolve([]), forget: () => Promise.resolve() },
    now: Date.now,
    steady: Date.now,
    policy: {
      images: ["*"],
      hostPorts: { from: 38_200, to: 38_299 },
      hostIp: "127.0.0.1",
      reserve: { cpus: 0, memoryMiB: 0, diskMiB: 0 },
      allowRoot: true,
      pullNoProgressMs: 1000,
      preemptWithinMs: 120_000,
      priorityPreemption: true,
      ...options.policy,
    },
    nodeId: "n".repeat(26),
    host: { architecture: "amd64", cpus: 8, memoryMiB: 16_000 },
    driver: () => ({}),
    gpus: () => Array.from({ length: options.gpus ?? 1 }, (_, index) => gpu(index)),
    held: () => options.held ?? { gpus: new Map() },
    engineProblem: nothing,
    diskFreeMiB: nothing,
    silentSince: nothing,
    changed: nothing,
    progress: nothing,
  });
  open.push(supervisor);
  await supervisor.restore();
  const assign = (id: string, input: Partial<WorkloadInput> = {}) =>
    supervisor.assign(
      WorkloadSchema.parse({ id, generation: 1, image: "a", gpus: { count: 1 }, stop: { graceSeconds: 5 }, ...input }),
    );
  return {
    disk,
    world,
    supervisor,
    hooks,
    kill: () => {
      line.cut = true;
    },
    commits: () => commits,
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

afterEach(async () => {
  for (const supervisor of open.splice(0)) await supervisor[Symbol.asyncDispose]();
});

const until = (condition: () => boolean, what: string) =>
  vi.waitFor(() => expect(condition(), what).toBe(true), { timeout: 10_000, interval: 2 });
const reached = ({ disk }: Stage, id: string, state: string) =>
  until(() => disk.states(id).includes(state), `${id} is ${state}`);

const urgent = { priority: 500 };

describe("a workload that finds no free GPU", () => {
  it("takes that of a lower priority, which has notice, its checkpoint and its grace first", async () => {
    const at = await stage();
    const stopping = Promise.withResolvers<void>();
    at.world.stopping = stopping.promise;
    at.assign("batch", { stop: { graceSeconds: 5, checkpoint: { exec: ["save"], timeoutSeconds: 30 } } });
    await reached(at, "batch", "running");
    const before = Date.now();
    at.assign("urgent", urgent);
    expect(at.supervisor.holders().get("GPU-0")).toBe("urgent");
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

    await reached(at, "batch", "stopping");
    await reached(at, "urgent", "starting");
    expect(at.world.running()).toEqual(["gpunode-batch-1"]);
    stopping.resolve();
    await reached(at, "urgent", "running");
    expect(at.disk.phases()).toEqual(["notice batch", "checkpointed batch", "finished batch"]);
    expect(at.disk.last("batch")).toMatchObject({
      state: "preempted",
      reason: "priority",
      message: "workload urgent of priority 500 takes its GPU",
    });
    expect(at.world.shared).toEqual([]);
    expect(at.world.running()).toEqual(["gpunode-urgent-1"]);
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
      await reached(at, id, "running");
    }
    at.assign("one", urgent);
    await reached(at, "one", "running");
    expect(at.disk.last("young")?.state).toBe("preempted");
    at.assign("two", { ...urgent, gpus: { count: 2 } });
    await reached(at, "two", "running");
    expect(at.disk.phases().filter((phase) => phase.startsWith("notice"))).toEqual([
      "notice young",
      "notice old,middle",
    ]);
    expect(at.world.running().sort()).toEqual(["gpunode-high-1", "gpunode-one-1", "gpunode-two-1"]);
    expect(at.world.shared).toEqual([]);
  });

  it("takes from one that has not started yet, and from one that waits for a GPU itself", async () => {
    const at = await stage();
    const stopping = Promise.withResolvers<void>();
    at.world.stopping = stopping.promise;
    at.assign("batch");
    await reached(at, "batch", "running");
    at.assign("urgent", urgent);
    at.assign("top", { priority: 900 });
    await reached(at, "urgent", "preempted");
    expect(at.disk.states("urgent")).not.toContain("running");
    stopping.resolve();
    await reached(at, "top", "running");
    expect(at.world.shared).toEqual([]);
    expect(at.disk.phases()).toEqual(["notice batch", "notice urgent", "finished urgent", "finished batch"]);
  });

  it("needs nobody's where one is free, or is given back already", async () => {
    const at = await stage({ gpus: 2 });
    at.assign("a");
    at.assign("urgent", urgent);
    await reached(at, "a", "running");
    await reached(at, "urgent", "running");
    at.supervisor.release("a");
    at.assign("more", { priority: 900 });
    await reached(at, "more", "running");
    expect(at.disk.phases()).toEqual([]);
    expect(at.disk.states("urgent").at(-1)).toBe("running");
  });

  it("is no reason to stop its own older generation twice: that one is replaced", async () => {
    const at = await stage();
    at.assign("job");
    await reached(at, "job", "running");
    at.assign("job", { ...urgent, generation: 2 });
    await until(() => at.world.running().includes("gpunode-job-2"), "the new generation runs");
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
    await reached(at, "batch", "running");
    const error = at.refusal("urgent", more);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(says);
    expect(at.disk.states("batch").at(-1)).toBe("running");
    expect(at.disk.states("urgent")).toEqual([]);
    expect(at.supervisor.records().map(({ id, stop }) => [id, stop])).toEqual([["batch", undefined]]);
  });

  it("for a GPU that its owner keeps from being lent, whoever is still on it", async () => {
    const held = { gpus: new Map<string, string>() };
    const { disk, assign, refusal } = await stage({ held });
    assign("batch", { priority: 1 });
    await vi.waitFor(() => expect(disk.states("batch")).toContain("running"));
    held.gpus.set("GPU-0", "taken back by its owner");
    expect(refusal("urgent", { priority: 1000 }).message).toMatch(/held by taken back by its owner/);
    expect(disk.phases()).toEqual([]);
  });

  it("who would not free enough", async () => {
    const at = await stage({ gpus: 2 });
    at.assign("batch");
    at.assign("top", { priority: 900 });
    await reached(at, "batch", "running");
    const error = at.refusal("urgent", { ...urgent, gpus: { count: 2 } });
    expect(error.message).toMatch(/; stopping those of lower priority than 500 \(batch\) would not free enough$/);
    expect(at.disk.states("batch").at(-1)).toBe("running");
  });

  it("where the disk refuses to write it down; it can be asked again", async () => {
    const at = await stage();
    at.assign("batch");
    await reached(at, "batch", "running");
    at.hooks.before = () => {
      throw new Error("SQLITE_FULL");
    };
    expect(() => at.assign("urgent", urgent)).toThrow("SQLITE_FULL");
    at.hooks.before = () => undefined;
    expect(at.disk.phases()).toEqual([]);
    expect(at.supervisor.holders().get("GPU-0")).toBe("batch");
    at.assign("urgent", urgent);
    await reached(at, "urgent", "running");
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
    await reached(at, "batch", "running");
    at.assign("urgent", { ...urgent, ...input });
    await reached(at, "urgent", "running");
    expect(at.disk.last("batch")?.state).toBe("preempted");
  });

  it("and of as many victims those whose going is enough are taken", async () => {
    const at = await stage({ gpus: 2 });
    at.assign("small", { priority: 1, resources: { memoryMiB: 1000 } });
    at.assign("large", { priority: 2, resources: { memoryMiB: 12_000 } });
    await reached(at, "large", "running");
    at.assign("urgent", { ...urgent, resources: { memoryMiB: 8000 } });
    await reached(at, "urgent", "running");
    expect(at.disk.states("small").at(-1)).toBe("running");
    expect(at.disk.last("large")?.state).toBe("preempted");
  });
});

describe("a killed agent", () => {
  /** Lives through a take-over, killed at commit `at` counted from the assignment: before it is on the disk, or right after. */
  async function lifeWithCrash(crash: { at: number; written: boolean }) {
    const first = await stage();
    first.assign("batch");
    await reached(first, "batch", "running");
    const from = first.commits();
    let crashed = false;
    const kill = (commit: number) => {
      if (commit - from !== crash.at) return;
      crashed = true;
      first.kill();
      throw new Error("killed");
    };
    if (crash.written) first.hooks.after = kill;
    else first.hooks.before = kill;
    try {
      first.assign("urgent", urgent);
    } catch {
      // The agent is dead.
    }
    await until(() => crashed || first.disk.states("urgent").includes("running"), "it runs, or the agent is dead");
    await first.supervisor[Symbol.asyncDispose]();
    const { disk, world } = first;
    return { crashed, next: await stage({ disk, world }), disk, world };
  }

  it("before the assignment is on the disk has told nothing and stopped nobody", async () => {
    const { disk, world, next } = await lifeWithCrash({ at: 1, written: false });
    expect(disk.phases()).toEqual([]);
    expect(next.supervisor.records().map(({ id, state, stop }) => [id, state, stop])).toEqual([
      ["batch", "running", undefined],
    ]);
    next.assign("urgent", urgent);
    await reached(next, "urgent", "running");
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
        await reached(next, "urgent", "running");
        await until(() => next.world.running().join() === "gpunode-urgent-1", what);
        expect(disk.phases(), what).toEqual(["notice batch", "finished batch"]);
        expect(disk.last("batch"), what).toMatchObject({ state: "preempted", reason: "priority" });
        expect(disk.states("batch").filter((state) => state === "preempted")).toHaveLength(1);
        expect(world.shared, what).toEqual([]);
      }
    }
    expect(crashes).toBeGreaterThan(8);
  });
});
