import type { Logger } from "pino";
import type { Config } from "../config/config.ts";
import { HealthJudge, type JudgeOptions } from "../gpu/judge.ts";
import { type XidCount, XidTally } from "../gpu/nvidia/xid-tally.ts";
import { nvidiaBoards, whyNoGpu } from "../gpu/pci-presence.ts";
import type { GpuWatch } from "../gpu/watch.ts";
import { kernelMessages } from "../host/kernel-log.ts";
import type { Problem } from "../protocol/agent-frames.ts";
import type { Gpu, GpuTelemetry } from "../protocol/gpu.ts";
import type { Store } from "../store/store.ts";
import { type ContainerWithGpus, GpuAccessWatch } from "../workload/gpu-access.ts";
import type { Engine } from "../workload/needs.ts";
import { eventOf } from "../workload/record.ts";
import { isTerminal } from "../workload/state.ts";
import type { Supervisor } from "../workload/supervisor.ts";

/** The judge makes nothing of a message without one of these: the driver's own prefix, and that of its NVSwitch module. */
const KERNEL_WORDS = ["NVRM", "nvidia"];

export interface NodeHealthDoors {
  config: Config;
  store: Store;
  engine: Engine;
  /** Not asked for anything before `start`; nor is the supervisor. */
  gpus: () => Pick<GpuWatch, "inventory">;
  supervisor: () => Supervisor;
  memory: JudgeOptions["memory"];
  /** What is advertised has changed. */
  changed(): void;
  log: Logger;
}

/** A fault and the work it hit are seen within this; clocks and logs are no more exact. */
const SEEN_MS = 1_000;
/** A kernel log that takes longer to read is not waited for. */
const CAUGHT_UP_MS = 3_000;

/**
 * The health of the GPUs as the node tells it: what the judge finds becomes events, work that cannot go on is taken off, and GPUs that are
 * not fit are not given out.
 */
export class NodeHealth implements AsyncDisposable {
  readonly #doors: NodeHealthDoors;
  readonly #judge: HealthJudge;
  /** Of the kernel's log since the start. */
  readonly #xids = new XidTally();
  readonly #stop = new AbortController();
  readonly #kernel: Promise<void>;
  /** Resolves when what the kernel's log held is known. */
  readonly #caughtUp = Promise.withResolvers<void>();
  #access: GpuAccessWatch | undefined;
  #kernelProblem: Problem | undefined;
  #isCaughtUp = false;

  /** Begins to read the kernel's log. */
  constructor(doors: NodeHealthDoors) {
    this.#doors = doors;
    this.#judge = new HealthJudge({ now: Date.now, memory: doors.memory });
    this.#kernel = this.#followKernel(doors.config.nvidia.kernelLog, this.#caughtUp.resolve);
  }

  /** Begins to look into containers. Resolves when what the kernel's log held is known: before that no GPU is told to be well. */
  async start(): Promise<void> {
    const { engine } = this.#doors;
    const patience = setTimeout(this.#caughtUp.resolve, CAUGHT_UP_MS);
    this.#access = new GpuAccessWatch({
      engine,
      running: () => this.#withGpus(),
      hostSees: (uuid) => {
        const { inventory } = this.#doors.gpus();
        return inventory.failed === undefined && inventory.gpus.some((gpu) => holds(gpu, uuid));
      },
      onLost: (workload, lost) => this.#accessLost(workload, lost),
      onBack: ({ containerId, gpus: uuids }) => {
        for (const gpu of this.#boardsOf(uuids)) this.#judge.outside(gpu.uuid, containerId, undefined);
        this.#settle();
      },
    });
    await this.#caughtUp.promise;
    clearTimeout(patience);
    this.#isCaughtUp = true;
  }

  /** A full read is over. */
  read(): void {
    this.#judge.read(this.#doors.gpus().inventory);
    this.#settle();
  }

  sampled(samples: readonly GpuTelemetry[]): void {
    this.#judge.sampled(samples);
  }

  /** The GPUs with their health, and whether they may be given out. */
  gpus(): Gpu[] {
    return this.#judge.gpus(this.#doors.gpus().inventory.gpus);
  }

  /** Faults the kernel has logged since the start; undefined where its log cannot be read. */
  xids(): XidCount[] | undefined {
    return this.#kernelProblem === undefined ? this.#xids.of(this.#doors.gpus().inventory.gpus) : undefined;
  }

  /** What keeps the node from telling all of its GPUs, or from having any. */
  problems(): Problem[] {
    const { problems, gpus } = this.#doors.gpus().inventory;
    const told = gpus.length === 0 ? whyNoGpu(problems, nvidiaBoards()) : problems;
    return this.#kernelProblem === undefined || gpus.length === 0 ? told : [...told, this.#kernelProblem];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#access?.[Symbol.asyncDispose]();
    await this.#kernel;
  }

  async #followKernel(path: string, onCaughtUp: () => void): Promise<void> {
    const onProblem = (problem: Problem | undefined) => {
      this.#kernelProblem = problem;
      this.#doors.changed();
    };
    const { signal } = this.#stop;
    const how = { path, signal, mentioning: KERNEL_WORDS, onProblem, onCaughtUp };
    for await (const message of kernelMessages(how)) {
      if (!this.#judge.kernel(message)) continue;
      if (!this.#isCaughtUp) continue;
      this.#xids.heard(message);
      // What it means is said below, as the health of the GPU.
      this.#doors.log.info(
        { at: new Date(message.atMs).toISOString() },
        `the kernel says: ${message.text.slice(0, 300)}`,
      );
      this.#settle();
    }
  }

  /** Tells what has changed, and takes off the work that a fault has broken. */
  #settle(): void {
    const { store, log, changed } = this.#doors;
    try {
      this.#judge.changes((events) => {
        store.append(events);
        for (const { gpu, status, reasons } of events) {
          const why = reasons.map(({ message }) => message).join("; ");
          // A program's fault is told of and leaves the GPU as it was.
          const how = status === "healthy" && why !== "" ? "stays healthy" : `is ${status}`;
          const board = this.gpus().find(({ uuid }) => uuid === gpu);
          const name = board === undefined ? "a GPU" : `GPU ${board.index}`;
          const sentence = `${name} ${how}${why === "" ? "" : `: ${why}`}`;
          if (status === "healthy") log.info({ gpu, status }, sentence);
          else {
            const meanwhile = board?.allocatable === true ? "it is lent all the same" : "nothing new is put on it";
            log.warn({ gpu, status }, `${sentence}; ${meanwhile}. docs/health.md says what ends that`);
          }
        }
        changed();
      });
      const faults = this.#judge.fatalFaults();
      if (this.#doors.config.preemption.gpuFault) {
        for (const { gpu, message, atMs } of faults) this.#takeOff(gpu, message, atMs);
      }
    } catch (error) {
      log.error(
        { err: error },
        "the health of the GPUs could not be recorded, and the coordinator hears of it late: make room on the disk of state_dir",
      );
    }
  }

  #takeOff(uuid: string, message: string, atMs: number): void {
    const supervisor = this.#doors.supervisor();
    const board = this.#doors.gpus().inventory.gpus.find((gpu) => gpu.uuid === uuid);
    const hit = supervisor.records().filter(
      ({ state, gpus, acceptedAt }) =>
        !isTerminal(state) &&
        // What came later was given a GPU that was well again.
        acceptedAt <= atMs + SEEN_MS &&
        gpus.some((held) => held === uuid || (board !== undefined && holds(board, held))),
    );
    if (hit.length > 0) supervisor.preempt([...new Set(hit.map(({ id }) => id))], { cause: "gpu_fault", message });
  }

  #accessLost({ id, containerId, gpus: uuids }: ContainerWithGpus, lost: readonly string[]): void {
    const { store } = this.#doors;
    const supervisor = this.#doors.supervisor();
    const message = `the container of ${id} no longer sees ${lost.length === 1 ? "its GPU" : `${lost.length} of its GPUs`}, the machine does (as after "systemctl daemon-reload"): start the workload anew`;
    for (const gpu of this.#boardsOf(uuids))
      this.#judge.outside(gpu.uuid, containerId, { code: "gpu_access_lost", message });
    const record = supervisor.records().find((known) => known.containerId === containerId);
    try {
      if (record !== undefined) store.append([{ ...eventOf(record), reason: "gpu_access_lost", message }]);
    } catch (error) {
      this.#doors.log.error({ err: error, workload: id }, `${message}. That could not be recorded`);
    }
    this.#settle();
  }

  #boardsOf(uuids: readonly string[]): Gpu[] {
    return this.#doors.gpus().inventory.gpus.filter((gpu) => uuids.some((uuid) => holds(gpu, uuid)));
  }

  #withGpus(): ContainerWithGpus[] {
    return this.#doors
      .supervisor()
      .records()
      .flatMap(({ id, containerId, gpus, state }) =>
        state === "running" && containerId !== undefined && gpus.length > 0 ? [{ id, containerId, gpus }] : [],
      );
  }
}

/** True where `uuid` is the GPU or one of its MIG instances. */
function holds(gpu: Gpu, uuid: string): boolean {
  return gpu.uuid === uuid || (gpu.mig?.instances.some((instance) => instance.uuid === uuid) ?? false);
}
