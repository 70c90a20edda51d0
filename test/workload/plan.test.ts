import { describe, expect, it } from "vitest";
import { WORKLOAD_STATES, Workload, type WorkloadState } from "../../src/protocol/workload.ts";
import type { ContainerState } from "../../src/workload/needs.ts";
import { endingOf, isUp, nextStep } from "../../src/workload/plan.ts";
import type { StopOrder, WorkloadRecord } from "../../src/workload/record.ts";
import { StoredWorkload } from "../../src/workload/record.ts";
import { isTerminal, mayFollow } from "../../src/workload/state.ts";

const ORDER: StopOrder = { outcome: "stopped", reason: "released", graceSeconds: 1 };
const STATUSES = ["created", "running", "paused", "restarting", "removing", "exited", "dead"] as const;

function record(changes: Partial<WorkloadRecord> = {}, spec: object = {}): WorkloadRecord {
  const parsed = Workload.parse({ id: "w", generation: 1, image: "a", ...spec });
  const base = { hadSecrets: false, gpus: [], ports: [], restarts: 0, timings: {}, acceptedAt: 0 };
  return { id: "w", generation: 1, spec: StoredWorkload.parse(parsed), state: "accepted", ...base, ...changes };
}

function container(changes: Partial<ContainerState> = {}): ContainerState {
  const base = { id: "c", name: "gpunode-w-1", labels: {}, pid: 0, exitCode: 0, oomKilled: false, error: "", gpus: [] };
  const ran = changes.status === "created" ? {} : { startedAt: "2024-01-01T00:00:00Z" };
  return { ...base, status: "running", ...ran, ...changes };
}

describe("the next step", () => {
  /** The container as a word: none, or its status. */
  type Case = [state: WorkloadState, status: "none" | (typeof STATUSES)[number], step: string];

  it.each<Case>([
    ["accepted", "none", "pull"],
    ["pulling", "none", "pull"],
    ["starting", "none", "create"],
    ["starting", "created", "start"],
    ["starting", "running", "markRunning"],
    ["starting", "exited", "markRunning"],
    ["running", "running", "wait"],
    ["running", "paused", "wait"],
    ["running", "exited", "finish"],
    ["running", "dead", "finish"],
    ["running", "none", "finish"],
    ["stopping", "running", "stop"],
    ["stopping", "exited", "finish"],
    ["stopping", "none", "finish"],
    ["failed", "created", "remove"],
    ["failed", "exited", "remove"],
    ["failed", "none", "done"],
  ])("%s, container %s: %s", (state, status, step) => {
    const there = status === "none" ? undefined : container({ status });
    const stop = state === "stopping" ? { stop: ORDER } : {};
    expect(nextStep(record({ state, imageId: "i", ...stop }), there).do).toBe(step);
  });

  it("pulls again where the record was lost between the pull and its result", () => {
    expect(nextStep(record({ state: "starting" }), undefined).do).toBe("pull");
  });

  it("does not call a container that never ran running", () => {
    const broken = container({ status: "exited", error: "no such command", exitCode: 127 });
    expect(nextStep(record({ state: "starting", imageId: "i" }), broken).do).toBe("finish");
  });

  it.each([
    { name: "as often as allowed", restarts: 1, exitCode: 3, step: "restart" },
    { name: "not more often", restarts: 2, exitCode: 3, step: "finish" },
    { name: "not after success", restarts: 0, exitCode: 0, step: "finish" },
    { name: "not where the start itself failed", restarts: 0, exitCode: 127, error: "no such command", step: "finish" },
    { name: "not when it was told to end", restarts: 0, exitCode: 3, stop: ORDER, step: "finish" },
  ])("restarts on failure $name", ({ restarts, exitCode, error = "", stop, step }) => {
    const life = record(
      { state: "running", restarts, ...(stop !== undefined && { stop }) },
      { restart: { policy: "on-failure", maxRetries: 2 } },
    );
    expect(nextStep(life, container({ status: "exited", exitCode, error })).do).toBe(step);
  });

  const containers = [
    undefined,
    ...STATUSES.flatMap((status) => [container({ status }), container({ status, exitCode: 1, error: "e" })]),
  ];
  const combinations = WORKLOAD_STATES.flatMap((state) =>
    [undefined, ORDER].flatMap((stop) => containers.map((there) => ({ state, stop, there }))),
  );

  it("is there for every record and every container, and makes sense", () => {
    for (const { state, stop, there } of combinations) {
      const step = nextStep(record({ state, imageId: "i", ...(stop !== undefined && { stop }) }), there);
      const what = `${state}, ${there?.status ?? "no container"}, ${stop?.reason ?? "no order"} → ${step.do}`;
      // Nothing but waiting, stopping and marking makes sense with live processes; those make none without.
      if (step.do === "stop" || step.do === "wait") expect(there && isUp(there), what).toBe(true);
      if (step.do === "create" || step.do === "pull") expect(there, what).toBeUndefined();
      if (step.do === "done") expect(isTerminal(state) && there === undefined, what).toBe(true);
      // A workload that was told to end, or has ended, is never begun.
      if (stop !== undefined || isTerminal(state)) {
        expect(["stop", "finish", "remove", "done"], what).toContain(step.do);
      }
      // An end is told only when nothing runs any more.
      if (step.do === "finish") expect(there !== undefined && isUp(there), what).toBe(false);
      if (isTerminal(state)) expect(["remove", "stop", "done"], what).toContain(step.do);
    }
  });
});

describe("the ending", () => {
  const ran = (changes: Partial<ContainerState>) => container({ status: "exited", ...changes });

  it.each<[string, Partial<WorkloadRecord>, ContainerState | undefined, object]>([
    ["success", {}, ran({}), { state: "succeeded", exitCode: 0 }],
    [
      "a child killed for memory while the main process coped",
      {},
      ran({ oomKilled: true }),
      { state: "succeeded", oomKilled: true },
    ],
    [
      "an exit code",
      {},
      ran({ exitCode: 3 }),
      { state: "failed", reason: "exit_code", message: "exited with code 3", exitCode: 3 },
    ],
    ["a signal", {}, ran({ exitCode: 139 }), { state: "failed", message: "ended by SIGSEGV (exit code 139)" }],
    ["memory", {}, ran({ exitCode: 137, oomKilled: true }), { state: "failed", reason: "oom_killed", oomKilled: true }],
    [
      "a failed start",
      {},
      ran({ error: "no such command", exitCode: 127 }),
      { reason: "start_failed", message: "no such command" },
    ],
    [
      "a container somebody removed",
      { containerId: "0123456789abcdef" },
      undefined,
      { state: "failed", reason: "container_gone" },
    ],
    ["an order before it ran", { stop: ORDER }, undefined, { state: "stopped", reason: "released" }],
    [
      "an order",
      { stop: { ...ORDER, outcome: "preempted", reason: "owner", message: "m" } },
      ran({ exitCode: 143 }),
      { state: "preempted", reason: "owner", message: "m", exitCode: 143 },
    ],
    ["an order over a failure", { stop: ORDER }, ran({ exitCode: 1 }), { state: "stopped", exitCode: 1 }],
  ])("%s", (_, changes, there, ending) => {
    expect(endingOf(record({ state: "running", ...changes }), there)).toMatchObject(ending);
  });

  it("has no exit code where nothing ever ran", () => {
    expect(endingOf(record({ stop: ORDER }), container({ status: "created" }))).toEqual({
      state: "stopped",
      reason: "released",
    });
  });

  it("says the memory limit that was hit", () => {
    const life = record({ state: "running" }, { resources: { memoryMiB: 64 } });
    expect(endingOf(life, ran({ exitCode: 137, oomKilled: true })).message).toContain("64 MiB");
  });
});

/**
 * A workload's life played out of the planner's steps, each taken apart into what can happen between two crashes: one
 * effect on the container, or one commit of the record.
 */
class Life {
  record: WorkloadRecord;
  container: ContainerState | undefined;
  /** Exit codes of the runs to come; with none left a run goes on until it is stopped. */
  readonly exits: number[];
  readonly did: string[] = [];
  readonly states: WorkloadState[] = ["accepted"];
  creates = 0;
  starts = 0;

  constructor(spec: object, exits: number[]) {
    this.record = record({}, spec);
    this.exits = [...exits];
  }

  /** As the runner sees it: before anything was created there is nothing to look at. */
  observe(): ContainerState | undefined {
    const { state, imageId } = this.record;
    if (state === "accepted" || state === "pulling") return undefined;
    if (isTerminal(state) && imageId === undefined) return undefined;
    return this.container;
  }

  /** The atoms of the next step, in order; [] when it is over. */
  atoms(): (() => void)[] {
    const step = nextStep(this.record, this.observe());
    this.did.push(step.do);
    const running = { state: "running" as const, startedAt: 1 };
    switch (step.do) {
      case "pull":
        return [() => this.commit({ state: "pulling" }), () => this.commit({ state: "starting", imageId: "i" })];
      case "create":
        return [() => this.create(), () => this.commit({ containerId: "c" })];
      case "start":
        return [() => this.start(), () => this.commit(running)];
      case "markRunning":
        return [() => this.commit(running)];
      case "wait":
        return [() => this.exit()];
      case "restart":
        return [() => this.commit({ restarts: this.record.restarts + 1 }), () => this.start()];
      case "stop":
        return [() => this.commit({ state: "stopping" }), () => this.down(143)];
      case "finish":
        return [() => this.commit({ ...endingOf(this.record, step.container) })];
      case "remove":
        return [() => this.remove()];
      case "done":
        return [];
    }
  }

  commit(changes: Partial<WorkloadRecord>): void {
    const { state } = changes;
    if (state !== undefined && state !== this.record.state) {
      if (!mayFollow(this.record.state, state))
        throw new Error(`${this.record.state} → ${state}: ${this.did.join(" ")}`);
      this.states.push(state);
    }
    this.record = { ...this.record, ...changes };
  }

  create(): void {
    if (this.container !== undefined) throw new Error(`created twice: ${this.did.join(" ")}`);
    this.creates += 1;
    this.container = container({ status: "created" });
  }

  start(): void {
    if (this.record.stop !== undefined) throw new Error(`started after the order to end: ${this.did.join(" ")}`);
    this.starts += 1;
    this.container = container({ status: "running" });
  }

  exit(): void {
    const code = this.exits.shift();
    if (code === undefined) this.record = { ...this.record, stop: ORDER };
    else this.down(code);
  }

  down(exitCode: number): void {
    if (this.container !== undefined) this.container = { ...this.container, status: "exited", exitCode };
  }

  remove(): void {
    if (this.container !== undefined && isUp(this.container)) throw new Error(`removed alive: ${this.did.join(" ")}`);
    this.container = undefined;
  }
}

describe("a life made of its steps", () => {
  const KINDS = [
    { name: "one that succeeds", spec: {}, exits: [0] },
    { name: "one that fails", spec: {}, exits: [7] },
    { name: "a server that is told to end", spec: {}, exits: [] },
    {
      name: "one that fails twice and then succeeds",
      spec: { restart: { policy: "on-failure", maxRetries: 5 } },
      exits: [1, 1, 0],
    },
    { name: "one that fails too often", spec: { restart: { policy: "on-failure", maxRetries: 1 } }, exits: [1, 1, 1] },
  ];

  /**
   * Plays a life to its end. `meddle` is asked before each atom: "crash" throws the rest of the step away, as a new
   * agent would begin with a look; "order" records a stop order, which interrupts the step too.
   */
  function play(life: Life, meddle: (atom: number) => "crash" | "order" | undefined): number {
    let atom = 0;
    for (let steps = 0; steps < 60; steps++) {
      const atoms = life.atoms();
      if (atoms.length === 0) return atom;
      for (const act of atoms) {
        const what = meddle(atom++);
        if (what === "order" && !isTerminal(life.record.state))
          life.record = { ...life.record, stop: life.record.stop ?? ORDER };
        if (what !== undefined) break;
        act();
      }
    }
    throw new Error(`it never ends: ${life.did.join(" ")}`);
  }

  function expectWellEnded(life: Life): void {
    expect(isTerminal(life.record.state), life.did.join(" ")).toBe(true);
    expect(life.states.filter(isTerminal), life.did.join(" ")).toHaveLength(1);
    expect(life.container, life.did.join(" ")).toBeUndefined();
    expect(life.creates).toBeLessThanOrEqual(1);
    expect(life.starts).toBeLessThanOrEqual(1 + life.record.spec.restart.maxRetries);
  }

  it.each(KINDS)("$name: crashes anywhere change nothing but the time it takes", ({ spec, exits }) => {
    const calm = new Life(spec, exits);
    const length = play(calm, () => undefined);
    expectWellEnded(calm);
    for (let first = 0; first <= length; first++) {
      for (let second = first + 1; second <= length + 2; second++) {
        const life = new Life(spec, exits);
        play(life, (atom) => (atom === first || atom === second ? "crash" : undefined));
        expectWellEnded(life);
        expect(life.states).toEqual(calm.states);
        expect(life.record.state).toBe(calm.record.state);
      }
    }
  });

  it.each(KINDS)("$name: an order at any moment, with a crash at any later one, ends it well", ({ spec, exits }) => {
    const length = play(new Life(spec, exits), () => undefined);
    for (let order = 0; order <= length; order++) {
      for (let crash = order + 1; crash <= order + 8; crash++) {
        const life = new Life(spec, exits);
        play(life, (atom) => (atom === order ? "order" : atom === crash ? "crash" : undefined));
        expectWellEnded(life);
        if (order === 0) expect(life.creates).toBe(0);
      }
    }
  });
});
