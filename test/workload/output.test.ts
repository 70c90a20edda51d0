import { getEventListeners } from "node:events";
import { describe, expect, it } from "vitest";
import { Workload } from "../../src/protocol/workload.ts";
import type { KeptLogs } from "../../src/workload/kept-logs.ts";
import type { ContainerState, Engine, LogChunk, LogOptions } from "../../src/workload/needs.ts";
import { WorkloadOutput } from "../../src/workload/output.ts";
import { StoredWorkload, type WorkloadRecord } from "../../src/workload/record.ts";

function record(changes: Partial<WorkloadRecord> = {}): WorkloadRecord {
  const spec = StoredWorkload.parse(Workload.parse({ id: "w", generation: 1, image: "a" }));
  const base = { hadSecrets: false, gpus: [], ports: [], restarts: 0, timings: {}, acceptedAt: 1 };
  return { id: "w", generation: 1, spec, state: "accepted", ...base, ...changes };
}

/** An engine with at most one container, whose output is what `lines` holds; a follower gets more as it comes. */
class Stage {
  record: WorkloadRecord | undefined = record();
  container: ContainerState | undefined;
  lines: { at: number; text: string }[] = [];
  kept: string[] = [];
  asked: LogOptions[] = [];
  onInspect: () => void = () => undefined;
  onLogs: () => void = () => undefined;
  #more = Promise.withResolvers<void>();
  readonly output: WorkloadOutput;

  constructor() {
    const engine: Pick<Engine, "inspect" | "logs"> = {
      // A turn of the event loop each, as a real engine takes: a reader in a spin then fails a test and not the machine.
      inspect: async () => {
        await turn(0);
        this.onInspect();
        return this.container;
      },
      logs: (_, options) => this.#logs(options),
    };
    const kept: KeptLogs = {
      keep: () => Promise.resolve(),
      read: () => Promise.resolve(this.kept.map((text) => ({ stream: "stdout", data: Buffer.from(text) }) as const)),
      forget: () => Promise.resolve(),
    };
    this.output = new WorkloadOutput(engine as Engine, kept, () => this.record);
  }

  async *#logs(options: LogOptions): AsyncGenerator<LogChunk> {
    this.asked.push(options);
    await turn(0);
    this.onLogs();
    const since = options.since === undefined ? 0 : Date.parse(options.since);
    const first = this.lines.filter(({ at }) => at >= since);
    let next = this.lines.length - (options.tail === undefined ? first.length : Math.min(first.length, options.tail));
    for (;;) {
      for (; next < this.lines.length; next++)
        yield { stream: "stdout", data: Buffer.from(this.lines[next]?.text ?? "") };
      if (!options.follow || options.signal.aborted || this.container?.status !== "running") return;
      await this.#more.promise;
    }
  }

  write(at: number, text: string): void {
    this.lines.push({ at, text });
    this.wake();
  }

  wake(): void {
    this.#more.resolve();
    this.#more = Promise.withResolvers();
  }

  set(changes: Partial<WorkloadRecord>): void {
    this.record = record({ ...this.record, ...changes });
    this.output.changed();
  }

  up(startedAt = 1): void {
    this.container = {
      id: "c",
      name: "gpunode-w-1",
      labels: {},
      status: "running",
      pid: 1,
      exitCode: 0,
      oomKilled: false,
      error: "",
      startedAt: new Date(startedAt).toISOString(),
      gpus: [],
    };
    this.set({ state: "running", containerId: "c" });
  }

  down(finishedAt: number): void {
    if (this.container !== undefined) {
      this.container = {
        ...this.container,
        status: "exited",
        exitCode: 1,
        finishedAt: new Date(finishedAt).toISOString(),
      };
    }
    this.wake();
  }

  /** Reads in the background into a list. */
  follow(options: { tail?: number; follow?: boolean } = {}) {
    const end = new AbortController();
    const got: string[] = [];
    const done = (async () => {
      for await (const { data } of this.output.open("w", { follow: true, ...options, signal: end.signal }))
        got.push(data.toString());
    })();
    return { got, done, end };
  }
}

const turn = (ms = 20) => new Promise((resolve) => setTimeout(resolve, ms));

describe("reading a workload's output", () => {
  it("knows no workload that is not there", () => {
    const stage = new Stage();
    stage.record = undefined;
    expect(() => stage.output.open("x", { follow: false, signal: AbortSignal.abort() })).toThrow(/no workload "x"/);
  });

  it("without following gives what there is, and ends", async () => {
    const stage = new Stage();
    stage.up();
    stage.write(1, "a");
    const reader = stage.follow({ follow: false });
    await reader.done;
    expect(reader.got).toEqual(["a"]);
  });

  it("with following waits for a container that is still to come, and ends with the workload", async () => {
    const stage = new Stage();
    const reader = stage.follow();
    await turn();
    stage.set({ state: "pulling" });
    await turn();
    stage.up();
    stage.write(1, "a");
    await turn();
    stage.write(2, "b");
    await turn();
    expect(reader.got).toEqual(["a", "b"]);
    stage.set({ state: "succeeded" });
    stage.down(3);
    await reader.done;
  });

  it("goes on after a restart where it left off", async () => {
    const stage = new Stage();
    stage.up();
    stage.write(10, "first");
    const reader = stage.follow({ tail: 5 });
    await turn();
    stage.down(20);
    await turn();
    stage.up(30);
    stage.set({ restarts: 1 });
    stage.write(40, "second");
    await turn();
    expect(reader.got).toEqual(["first", "second"]);
    stage.set({ state: "failed" });
    stage.down(50);
    await reader.done;
  });

  it("does not ask in a spin while a container waits for its restart", async () => {
    const stage = new Stage();
    stage.up();
    stage.write(10, "first");
    stage.down(20);
    const reader = stage.follow();
    await turn(100);
    expect(stage.asked.length).toBeLessThanOrEqual(3);
    reader.end.abort();
    await reader.done;
  });

  it("ends when the reader leaves, and leaves nothing behind on the reader's signal", async () => {
    const stage = new Stage();
    const reader = stage.follow();
    await turn();
    for (let n = 0; n < 50; n++) {
      stage.set({ state: "pulling" });
      await turn(1);
    }
    expect(getEventListeners(reader.end.signal, "abort").length).toBeLessThanOrEqual(2);
    reader.end.abort();
    await reader.done;
    expect(getEventListeners(reader.end.signal, "abort")).toHaveLength(0);
  });

  it("reads what was kept where the container is gone", async () => {
    const stage = new Stage();
    stage.kept = ["last words"];
    stage.set({ state: "failed", containerId: "c" });
    const reader = stage.follow();
    await reader.done;
    expect(reader.got).toEqual(["last words"]);
  });

  it("reads what was kept also where the container went in the moment of the look", async () => {
    const stage = new Stage();
    stage.up();
    stage.container = undefined;
    stage.kept = ["last words"];
    stage.onInspect = () => stage.set({ state: "failed" });
    const reader = stage.follow({ follow: false });
    await reader.done;
    expect(reader.got).toEqual(["last words"]);
  });
});

describe("a container that is just being removed", () => {
  const removing = () => {
    throw new Error("can not get logs from container which is dead or marked for removal");
  };

  it.each([true, false])("is read from what was kept (follow: %s)", async (follow) => {
    const stage = new Stage();
    stage.up();
    stage.down(2);
    stage.set({ state: "failed" });
    stage.kept = ["last words"];
    stage.onLogs = removing;
    const reader = stage.follow({ follow });
    await reader.done;
    expect(reader.got).toEqual(["last words"]);
  });

  it("of a workload that lives on is an error", async () => {
    const stage = new Stage();
    stage.up();
    stage.kept = ["not these"];
    stage.onLogs = removing;
    await expect(stage.follow().done).rejects.toThrow(/marked for removal/);
  });
});

describe("the removal of a container", () => {
  it("waits for those who still read it", async () => {
    const stage = new Stage();
    stage.up();
    stage.write(1, "a");
    const reader = stage.follow();
    await turn();
    let gone = false;
    const waiting = stage.output.readersGone(record(), new AbortController().signal).then(() => {
      gone = true;
    });
    stage.output.changed();
    await turn();
    expect(gone).toBe(false);
    stage.set({ state: "failed" });
    stage.down(2);
    await waiting;
    await reader.done;
  });

  it("waits for nobody where nobody reads", async () => {
    await new Stage().output.readersGone(record(), new AbortController().signal);
  });
});
