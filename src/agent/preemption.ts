import type { Logger } from "pino";
import type { Config } from "../config/config.ts";
import { ownerOfProcess } from "../host/cgroup.ts";
import type { Claim, ClaimSource } from "../preemption/claim.ts";
import { watchCloud } from "../preemption/cloud.ts";
import { type CoordinatorDrain, createCoordinatorDrain } from "../preemption/coordinator-drain.ts";
import { type ForeignProcess, type ForeignUse, trackForeignUse } from "../preemption/foreign-process.ts";
import { type HostPressure, relieveHostPressure } from "../preemption/host-pressure.ts";
import { createOwner, type Owner } from "../preemption/owner.ts";
import { Register } from "../preemption/register.ts";
import { watchSchedule } from "../preemption/schedule.ts";
import type { Hold } from "../protocol/agent-frames.ts";
import { GpunodeError } from "../protocol/errors.ts";
import type { EventBody, PressureEvent } from "../protocol/event.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { Store } from "../store/store.ts";
import { pendingNotice } from "../workload/record.ts";
import { isTerminal } from "../workload/state.ts";
import type { Supervisor } from "../workload/supervisor.ts";
import { coordinatorDrainMemory, ownerMemory } from "./settings.ts";

export interface NodePreemptionDoors {
  config: Config;
  store: Store;
  supervisor: Supervisor;
  boards(): readonly Gpu[];
  /** Asks for a full read of the GPUs. */
  readGpus(): void;
  tell(events: EventBody[]): void;
  changed(): void;
  steady(): number;
  log: Logger;
}

/** Who may take GPUs back on this node, each with its configuration, and the one register all of them speak to. */
export class NodePreemption implements AsyncDisposable {
  readonly #doors: NodePreemptionDoors;
  readonly #register: Register;
  readonly #sources = new AsyncDisposableStack();
  #words: { owner: Owner; coordinator: CoordinatorDrain } | undefined;
  #foreign: ForeignUse | undefined;
  #hostPressure: HostPressure | undefined;
  #look: NodeJS.Timeout | undefined;
  #isSaidBlind = false;

  constructor(doors: NodePreemptionDoors) {
    this.#doors = doors;
    const { supervisor, steady } = doors;
    this.#register = new Register({
      records: () => supervisor.records(),
      preempt: (ids, why) => supervisor.preempt(ids, why),
      withdraw: (ids, message) => supervisor.withdraw(ids, message),
      boards: doors.boards,
      tell: doors.tell,
      changed: doors.changed,
      now: Date.now,
      steady,
      log: doors.log,
    });
  }

  /** Takes up what owner and coordinator have said to earlier agents, and begins to watch. The supervisor knows its records by then. */
  start(): void {
    const { store, steady, config } = this.#doors;
    const { preemption } = config;
    this.#words = {
      owner: createOwner({ memory: ownerMemory(store), raise: this.#raise("owner"), now: Date.now, steady }),
      coordinator: createCoordinatorDrain(coordinatorDrainMemory(store), this.#raise("coordinator"), steady),
    };
    this.#sources.use(this.#words.owner);
    this.#watchSchedule();
    this.#watchCloud();
    if (preemption.foreignProcess) {
      this.#foreign = this.#trackForeignUse();
      if (namesNobody()) this.#sayBlind("without systemd nobody can tell whose process it is");
    }
    if (preemption.hostPressure) this.#hostPressure = this.#sources.use(this.#relieveHostPressure());
  }

  /** A full read of the GPUs is over; undefined where it could not tell the processes. */
  processesRead(foreign: readonly ForeignProcess[] | undefined): void {
    this.#foreign?.read(foreign);
    if (this.#foreign !== undefined && foreign?.some(({ vramUsedMiB }) => vramUsedMiB === undefined) === true) {
      this.#sayBlind("the driver does not tell how much memory each process uses");
    }
  }

  pressure(event: PressureEvent): void {
    this.#hostPressure?.pressure(event);
  }

  workloadsChanged(): void {
    this.#hostPressure?.workloadsChanged();
  }

  /** Everything on this node has to be gone by then. */
  shutDown({ deadlineAt, message }: { deadlineAt: number; message: string }): void {
    this.#register.raise("host_shutdown", [{ work: "stop", message, deadlineAt }]);
  }

  /** What is kept from being lent, for admission. */
  held(): ReturnType<Register["held"]> {
    return this.#register.held();
  }

  holds(): Hold[] {
    return this.#register.holds();
  }

  /** The whole node is kept from being lent. */
  get holdsNode(): boolean {
    return this.held().node !== undefined;
  }

  /** The GPUs, those that are kept from being lent marked so. */
  marked(gpus: readonly Gpu[]): Gpu[] {
    const { node, gpus: held } = this.held();
    return gpus.map((gpu) => (node !== undefined || held.has(gpu.uuid) ? { ...gpu, allocatable: false } : gpu));
  }

  /** Drained for maintenance, and nothing runs any more. */
  get isEmptied(): boolean {
    return (
      this.#words?.owner.isForMaintenance === true && this.#doors.supervisor.runners().every(({ isOver }) => isOver)
    );
  }

  drain(options: { graceSeconds?: number; maintenance?: boolean }): Hold[] {
    this.#said.owner.drain(options);
    return this.holds();
  }

  /** GPUs by index or UUID. Throws `no_matching_gpu` where there is no such GPU. */
  reclaim({ gpus, ...options }: { gpus?: readonly string[]; forMs?: number; graceSeconds?: number }): Hold[] {
    this.#said.owner.reclaim({
      ...options,
      ...(gpus !== undefined && { gpus: boardsNamed(gpus, this.#doors.boards()) }),
    });
    return this.holds();
  }

  /** The owner's word goes before the coordinator's: without `gpus` its drain is lifted too. Returns who else keeps what. */
  resume({ gpus }: { gpus?: readonly string[] } = {}): Hold[] {
    if (gpus !== undefined) this.#said.owner.resume({ gpus: boardsNamed(gpus, this.#doors.boards()) });
    else {
      this.#said.owner.resume();
      this.#said.coordinator.resume();
    }
    return this.holds();
  }

  /** Throws `policy_denied` where the provider does not let the coordinator take work back. */
  coordinatorDrain(options: { graceSeconds?: number }): void {
    this.requireCoordinator();
    this.#said.coordinator.drain(options);
  }

  coordinatorResume(): void {
    this.#said.coordinator.resume();
  }

  requireCoordinator(): void {
    if (this.#doors.config.preemption.coordinator) return;
    const message =
      "preemption.coordinator is false: the owner of this node lets only workloads be released, not preempted";
    throw new GpunodeError("policy_denied", message);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#look);
    await this.#sources.disposeAsync();
    this.#register[Symbol.dispose]();
  }

  /** What it says at once is its first word, also where that is nothing: a notice of an earlier agent may stand. */
  #watchSchedule(): void {
    const { config, steady } = this.#doors;
    const tell = this.#raise("schedule");
    let first: readonly Claim[] | undefined = [];
    const raise = (claims: readonly Claim[]) => {
      if (first === undefined) tell(claims);
      else first = claims;
    };
    this.#sources.use(watchSchedule({ ...config.availability, now: Date.now, steady, raise }));
    tell(first);
    first = undefined;
  }

  #watchCloud(): void {
    const { config, steady, log, boards, supervisor } = this.#doors;
    const hadNotice = supervisor.records().some((record) => pendingNotice(record)?.cause === "cloud_notice");
    const hasGpus = () => boards().length > 0;
    const raise = this.#raise("cloud_notice");
    const watching = config.preemption.cloudNotice
      ? watchCloud({ ...config.cloud, now: Date.now, steady, hasGpus, hadNotice, raise, log })
      : undefined;
    // Nobody's cloud: then a notice that an earlier agent gave for it stands no longer.
    if (watching === undefined) raise([]);
    else this.#sources.use(watching);
  }

  #trackForeignUse(): ForeignUse {
    const { config, steady, supervisor, boards, readGpus } = this.#doors;
    const { yieldToOwner, backAfterMs } = config.availability;
    return trackForeignUse({
      limits: yieldToOwner,
      backAfterMs,
      steady,
      isOwnContainer: (id) => supervisor.records().some(({ containerId }) => containerId === id),
      nameOf: (uuid) => {
        const board = boards().find((gpu) => gpu.uuid === uuid);
        return board === undefined ? "a GPU" : `GPU ${board.index}`;
      },
      raise: this.#raise("foreign_process"),
      lookAgain: (inMs) => {
        clearTimeout(this.#look);
        this.#look = setTimeout(readGpus, inMs);
        this.#look.unref();
      },
    });
  }

  #relieveHostPressure(): HostPressure {
    const { supervisor, steady, log } = this.#doors;
    return relieveHostPressure({
      steady,
      live: () =>
        supervisor
          .records()
          .filter(({ state }) => !isTerminal(state))
          .map(({ id, spec: { preemptible, priority }, acceptedAt, stop }) => ({
            id,
            preemptible,
            priority,
            acceptedAt,
            isEnding: stop !== undefined,
          })),
      raise: this.#raise("host_pressure"),
      preempt: (id, message) => {
        try {
          supervisor.preempt([id], { cause: "host_pressure", message });
        } catch (error) {
          log.error(
            { err: error, workload: id },
            'a workload could not be ended for the machine\'s sake; "gpunode drain" ends all of them',
          );
        }
      },
    });
  }

  /** That the owner's programs are not seen is said once: silence would pass for nobody being there. */
  #sayBlind(why: string): void {
    if (this.#isSaidBlind) return;
    this.#isSaidBlind = true;
    const remedy =
      'take it back with "gpunode reclaim", or lend by the clock with availability.windows; preemption.foreign_process = false says that this is as you want it';
    this.#doors.log.info({}, `a program of yours that needs a GPU does not get it by itself here: ${why}; ${remedy}`);
  }

  get #said(): { owner: Owner; coordinator: CoordinatorDrain } {
    if (this.#words === undefined) throw new Error("asked before it was started");
    return this.#words;
  }

  #raise(source: ClaimSource) {
    return this.#register.raise.bind(this.#register, source);
  }
}

/** Neither this process nor the machine's first belongs to a unit or a container: nor will others. */
function namesNobody(): boolean {
  return [process.pid, 1].every((pid) => ownerOfProcess(pid) === undefined);
}

/** UUIDs of the GPUs that are named by index or UUID. Throws `no_matching_gpu` with those there are. */
function boardsNamed(names: readonly string[], boards: readonly Gpu[]): string[] {
  const uuids = names.map((name) => {
    const board = boards.find(({ index, uuid }) => name === String(index) || name.toLowerCase() === uuid.toLowerCase());
    if (board !== undefined) return board.uuid;
    const there = boards.length === 0 ? "none" : boards.map(({ index }) => index).join(", ");
    throw new GpunodeError("no_matching_gpu", `there is no GPU ${name.slice(0, 80)}; this machine has: ${there}`);
  });
  return [...new Set(uuids)];
}
