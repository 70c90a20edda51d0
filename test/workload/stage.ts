import { expect, vi } from "vitest";
import { GpunodeError } from "../../src/protocol/errors.ts";
import type { DurableEvent, EventBody, WorkloadEvent } from "../../src/protocol/event.ts";
import type { Gpu } from "../../src/protocol/gpu.ts";
import { type Workload, type WorkloadInput, Workload as WorkloadSchema } from "../../src/protocol/workload.ts";
import type { KeptLogs } from "../../src/workload/kept-logs.ts";
import {
  type ContainerSpec,
  type ContainerState,
  type Engine,
  type Journal,
  type JournalRow,
  LABEL_NODE,
  LABEL_WORKLOAD,
} from "../../src/workload/needs.ts";
import { isUp } from "../../src/workload/plan.ts";
import { recordKey } from "../../src/workload/record.ts";
import { isTerminal, mayFollow } from "../../src/workload/state.ts";
import { Supervisor, type SupervisorDoors } from "../../src/workload/supervisor.ts";

/*
 * The supervisor and its runners between two stand-ins for the machine: a disk and a container engine, both in memory, so
 * that every call of theirs can be made to fail, to hang, or to be the last thing that happens before a crash.
 */

export const NODE_ID = "n".repeat(26);

/** The disk: what lies on it survives the agent. */
export class Disk {
  readonly rows = new Map<string, string>();
  readonly events: DurableEvent[] = [];

  workloadEvents(id?: string): WorkloadEvent[] {
    return this.events.filter(
      (event) => event.kind === "workload" && (id === undefined || event.workload === id),
    ) as never;
  }

  states(id: string, generation = 1): string[] {
    return this.workloadEvents(id)
      .filter((event) => event.generation === generation)
      .map(({ state }) => state);
  }

  /** Phases of preemptions with those they befell. */
  phases(): string[] {
    return this.events.flatMap((event) =>
      event.kind === "preemption" ? [`${event.phase} ${event.workloads.join()}`] : [],
    );
  }
}

export interface Machine {
  container: ContainerState;
  spec: ContainerSpec;
  /** Exit codes of its runs to come; with none left it runs until it is stopped. */
  exits: number[];
  down: PromiseWithResolvers<void>;
}

export type Call = keyof Engine;
export type ContainerStop = Parameters<Engine["stop"]>[1];

/** The engine's side: containers live on whatever becomes of the agent. */
export class World {
  readonly machines = new Map<string, Machine>();
  readonly calls: { call: Call; id: string; detail?: unknown }[] = [];
  /** Called at the beginning of each call; what it throws, or waits for, the call does. */
  before: (call: Call, id: string) => void | Promise<void> = () => undefined;
  /** The same at its end, when it has had its effect. */
  after: (call: Call, id: string) => void | Promise<void> = () => undefined;
  #away = false;
  #gone = Promise.withResolvers<void>();
  /** GPUs that two live containers had at once. */
  readonly shared: string[] = [];
  #next = 1;

  get away(): boolean {
    return this.#away;
  }

  set away(away: boolean) {
    this.#away = away;
    if (away) this.#gone.resolve();
    else this.#gone = Promise.withResolvers();
  }

  find(id: string): Machine | undefined {
    return this.machines.get(id) ?? [...this.machines.values()].find(({ container }) => container.name === id);
  }

  of(workload: string): Machine | undefined {
    return [...this.machines.values()].find(({ spec }) => spec.labels[LABEL_WORKLOAD] === workload);
  }

  /** Names of the containers that run. */
  running(): string[] {
    const containers = [...this.machines.values()].map(({ container }) => container);
    return containers.filter(({ status }) => status === "running").map(({ name }) => name);
  }

  count(call: Call): number {
    return this.calls.filter((made) => made.call === call).length;
  }

  exit(machine: Machine, exitCode: number): void {
    if (!isUp(machine.container)) return;
    const finishedAt = new Date().toISOString();
    machine.container = { ...machine.container, status: "exited", pid: 0, exitCode, finishedAt };
    machine.down.resolve();
  }

  /** An agent's connection to it. Once `cut` is true nothing comes or goes: the agent was killed. */
  connect(line: { cut: boolean } = { cut: false }): Engine {
    const unavailable = () => new GpunodeError("engine_unavailable", "the engine is away");
    const through = async <T>(call: Call, id: string, act: () => T | Promise<T>, detail?: unknown): Promise<T> => {
      const check = () => {
        if (line.cut || this.#away) throw unavailable();
      };
      await new Promise((resolve) => setImmediate(resolve));
      check();
      this.calls.push({ call, id, ...(detail !== undefined && { detail }) });
      await this.before(call, id);
      check();
      const result = await act();
      await this.after(call, id);
      check();
      return result;
    };
    const image = {
      id: "sha256:i",
      digest: "sha256:d",
      sizeBytes: 1,
      architecture: "amd64",
      os: "linux",
      env: [],
      user: "",
    };
    const copy = (machine: Machine | undefined) => (machine === undefined ? undefined : { ...machine.container });
    return {
      info: () => Promise.resolve({ kind: "docker", available: !this.#away }),
      pull: (reference, { signal, onProgress }) =>
        untilAborted(
          signal,
          through("pull", reference, () => {
            onProgress(1, 2);
            return image;
          }),
        ),
      image: () => Promise.resolve(image),
      images: () => Promise.resolve([]),
      create: (spec) =>
        through("create", spec.name, () => {
          const there = this.find(spec.name);
          if (there !== undefined) return there.container.id;
          const id = `c${this.#next++}`;
          const base = { id, name: spec.name, labels: spec.labels, pid: 0, exitCode: 0, oomKilled: false, error: "" };
          const exits = String(spec.env.EXITS ?? "")
            .split(",")
            .filter(Boolean)
            .map(Number);
          const container: ContainerState = { ...base, status: "created", gpus: spec.gpus };
          this.machines.set(id, { container, spec, exits, down: Promise.withResolvers() });
          return id;
        }),
      start: (id) =>
        through("start", id, () => {
          const machine = this.find(id);
          if (machine === undefined) throw new GpunodeError("internal", "gone");
          if (isUp(machine.container)) return;
          const others = [...this.machines.values()].filter((other) => other !== machine && isUp(other.container));
          const taken = new Set(others.flatMap(({ spec }) => spec.gpus));
          this.shared.push(...machine.spec.gpus.filter((uuid) => taken.has(uuid)));
          const { finishedAt: _, ...container } = machine.container;
          machine.container = { ...container, status: "running", pid: 1, startedAt: new Date().toISOString() };
          machine.down = Promise.withResolvers();
          const code = machine.exits.shift();
          if (code !== undefined) setImmediate(() => this.exit(machine, code));
        }),
      stop: (id, options) =>
        through(
          "stop",
          id,
          () => {
            const machine = this.find(id);
            if (machine !== undefined) this.exit(machine, options.graceSeconds > 0 ? 143 : 137);
          },
          options,
        ),
      kill: (id) => through("kill", id, () => undefined),
      remove: (id) =>
        through("remove", id, () => {
          this.machines.get(id)?.down.resolve();
          this.machines.delete(id);
        }),
      inspect: (id) => through("inspect", id, () => copy(this.find(id))),
      list: (nodeId) =>
        through("list", "", () =>
          [...this.machines.values()]
            .filter(({ spec }) => spec.labels[LABEL_NODE] === nodeId)
            .map(({ container }) => container),
        ),
      wait: (id, signal) =>
        untilAborted(
          signal,
          through("wait", id, async () => {
            const machine = this.find(id);
            if (machine !== undefined && isUp(machine.container))
              await Promise.race([machine.down.promise, this.#gone.promise]);
            if (this.#away) throw unavailable();
            return copy(this.find(id));
          }),
        ),
      async *logs() {
        await Promise.resolve();
        yield { stream: "stdout" as const, data: Buffer.from("hello\n") };
      },
      usage: () => Promise.resolve(undefined),
      diskAccount: () => Promise.resolve({ containers: [], volumeBytes: new Map() }),
      exec: (id, argv, { signal }) =>
        untilAborted(
          signal,
          through("exec", id, () => ({ exitCode: 0, output: "" }), argv),
        ),
      putFile: (id, file) => through("putFile", id, () => undefined, file),
    };
  }
}

/** The promise, or the signal's reason where that comes first; leaves no listener behind. */
async function untilAborted<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  signal.throwIfAborted();
  const cut = Promise.withResolvers<never>();
  const abort = () => cut.reject(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    return await Promise.race([promise, cut.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

export function gpu(index: number): Gpu {
  const health = { status: "healthy" as const, reasons: [] };
  return {
    index,
    uuid: `GPU-${index}`,
    vendor: "nvidia",
    name: "Test",
    vramMiB: 1000,
    links: [],
    health,
    allocatable: true,
  };
}

export const POLICY: SupervisorDoors["policy"] = {
  images: ["*"],
  hostPorts: { from: 38_100, to: 38_199 },
  hostIp: "127.0.0.1",
  reserve: { cpus: 0, memoryMiB: 0, diskMiB: 0 },
  allowRoot: true,
  pullNoProgressMs: 1000,
  preemptWithinMs: 120_000,
  priorityPreemption: true,
};

export interface Agent extends AsyncDisposable {
  supervisor: Supervisor;
  /** What its journal does before and after each commit, counted from 1; a throw refuses the write. */
  disk: { before: (commit: number, events: readonly EventBody[]) => void; after: (commit: number) => void };
  line: { cut: boolean };
  /** `skewMs`: time that passed; `stepMs`: what was done to the wall clock alone. */
  clock: { skewMs: number; stepMs: number; silentSince: number | undefined };
  doors: SupervisorDoors;
  assign(input: Partial<WorkloadInput>): void;
}

const agents: Agent[] = [];

export function agentOn(disk: Disk, world: World, changes: Partial<SupervisorDoors> = {}): Agent {
  const line = { cut: false };
  const clock: Agent["clock"] = { skewMs: 0, stepMs: 0, silentSince: undefined };
  const hooks: Agent["disk"] = { before: () => undefined, after: () => undefined };
  const steady = () => Date.now() + clock.skewMs;
  const now = () => steady() + clock.stepMs;
  let commits = 0;
  const journal: Journal = {
    commit({ put, remove, events }) {
      if (line.cut) throw new Error("this agent was killed");
      const commit = ++commits;
      hooks.before(commit, events);
      for (const { key, body } of put) disk.rows.set(key, JSON.stringify(body));
      for (const key of remove) disk.rows.delete(key);
      const at = new Date(now()).toISOString();
      const told = events.map((event, n) => ({ ...event, seq: disk.events.length + n + 1, at }));
      disk.events.push(...told);
      hooks.after(commit);
      return told;
    },
    rows: () => [...disk.rows].map(([key, body]): JournalRow => ({ key, body: JSON.parse(body) as unknown })),
    told: () => Promise.resolve(true),
  };
  const silent = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const keptLogs: KeptLogs = {
    keep: () => Promise.resolve(),
    read: () => Promise.resolve([]),
    forget: () => Promise.resolve(),
  };
  const doors: SupervisorDoors = {
    engine: world.connect(line),
    journal,
    log: silent,
    keptLogs,
    now,
    steady,
    policy: POLICY,
    nodeId: NODE_ID,
    host: { architecture: "amd64", cpus: 8, memoryMiB: 16_000 },
    driver: () => ({}),
    gpus: () => [gpu(0), gpu(1)],
    held: () => ({ gpus: new Map() }),
    engineProblem: () => undefined,
    diskFreeMiB: () => undefined,
    silentSince: () => clock.silentSince,
    changed: () => undefined,
    progress: () => undefined,
    ...changes,
  };
  const supervisor = new Supervisor(doors);
  const agent: Agent = {
    supervisor,
    disk: hooks,
    line,
    clock,
    doors,
    assign: (input) => supervisor.assign(workload(input)),
    [Symbol.asyncDispose]: () => supervisor[Symbol.asyncDispose](),
  };
  agents.push(agent);
  return agent;
}

export function workload(input: Partial<WorkloadInput>): Workload {
  return WorkloadSchema.parse({ id: "w", generation: 1, image: "a", ...input });
}

/** Runs that exit with these codes, one after the other. */
export const exits = (...codes: number[]) => ({ env: { EXITS: codes.join(",") } });
export const oneGpu = { gpus: { count: 1, uuids: ["GPU-0"] } };

export function until(condition: () => boolean, what: string, timeoutMs = 5000): Promise<void> {
  return vi.waitFor(() => expect(condition(), what).toBe(true), { timeout: timeoutMs, interval: 2 });
}

export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
export const ended = (disk: Disk, id = "w", generation = 1) =>
  until(() => disk.states(id, generation).some((state) => isTerminal(state as never)), `${id}#${generation} has ended`);
export const reached = (disk: Disk, state: string, id = "w", generation = 1) =>
  until(() => disk.states(id, generation).includes(state), `${id}#${generation} is ${state}`);

/** Fails where the agent does not leave in time. */
export async function leave(agent: Agent): Promise<void> {
  const late = Promise.withResolvers<string>();
  const timer = setTimeout(() => late.resolve("the agent hangs"), 3000);
  const outcome = await Promise.race([agent[Symbol.asyncDispose]().then(() => "left"), late.promise]);
  clearTimeout(timer);
  expect(outcome).toBe("left");
}

/** What has to be true of every history. */
export function expectSound(disk: Disk): void {
  const last = new Map<string, WorkloadEvent["state"]>();
  for (const { workload: id, generation, state } of disk.workloadEvents()) {
    const key = recordKey({ id, generation });
    const before = last.get(key);
    if (before !== undefined && before !== state)
      expect(mayFollow(before, state), `${key}: ${before} → ${state}`).toBe(true);
    if (before !== undefined && before === state) expect(isTerminal(state), `${key} ended twice`).toBe(false);
    last.set(key, state);
  }
}

/** For `afterEach`: every agent of the test leaves. */
export async function leaveAll(): Promise<void> {
  for (const agent of agents.splice(0)) await leave(agent);
}

/** The commonest stage: an empty disk, an empty engine, one agent. */
export async function stage(changes: Partial<SupervisorDoors> = {}) {
  const disk = new Disk();
  const world = new World();
  const agent = agentOn(disk, world, changes);
  await agent.supervisor.restore();
  return { disk, world, agent, supervisor: agent.supervisor };
}
