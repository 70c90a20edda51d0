import type { Logger } from "pino";
import type { Config } from "../config/config.ts";
import type { ClaimSource } from "../preemption/claim.ts";
import { type CoordinatorDrain, createCoordinatorDrain } from "../preemption/coordinator-drain.ts";
import { createOwner, type Owner } from "../preemption/owner.ts";
import { Register } from "../preemption/register.ts";
import { GpunodeError } from "../protocol/errors.ts";
import type { EventBody } from "../protocol/event.ts";
import type { Hold } from "../protocol/frames.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { Store } from "../store/store.ts";
import type { Supervisor } from "../workload/supervisor.ts";
import { coordinatorDrainMemory, ownerMemory } from "./settings.ts";

export interface NodePreemptionDoors {
  config: Config;
  store: Store;
  supervisor: Supervisor;
  boards(): readonly Gpu[];
  tell(events: EventBody[]): void;
  changed(): void;
  steady(): number;
  log: Logger;
}

/** Who may take GPUs back on this node, each with its configuration, and the one register all of them speak to. */
export class NodePreemption implements Disposable {
  readonly #doors: NodePreemptionDoors;
  readonly #register: Register;
  readonly #owner: Owner;
  readonly #coordinator: CoordinatorDrain;

  /** Takes up what owner and coordinator have said to earlier agents. The supervisor must know its records already. */
  constructor(doors: NodePreemptionDoors) {
    this.#doors = doors;
    const { supervisor, store, steady } = doors;
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
    this.#owner = createOwner({ memory: ownerMemory(store), raise: this.#raise("owner"), now: Date.now, steady });
    this.#coordinator = createCoordinatorDrain(coordinatorDrainMemory(store), this.#raise("coordinator"), steady);
  }

  /** What is kept from being lent, for admission. */
  held(): ReturnType<Register["held"]> {
    return this.#register.held();
  }

  holds(): Hold[] {
    return this.#register.holds();
  }

  /** The GPUs, those that are kept from being lent marked so. */
  marked(gpus: readonly Gpu[]): Gpu[] {
    const { node, gpus: held } = this.held();
    return gpus.map((gpu) => (node !== undefined || held.has(gpu.uuid) ? { ...gpu, allocatable: false } : gpu));
  }

  /** Drained for maintenance, and nothing runs any more. */
  get isEmptied(): boolean {
    return this.#owner.isForMaintenance && this.#doors.supervisor.runners().every(({ isOver }) => isOver);
  }

  drain(options: { graceSeconds?: number; maintenance?: boolean }): Hold[] {
    this.#owner.drain(options);
    return this.holds();
  }

  /** GPUs by index or UUID. Throws `no_matching_gpu` where there is no such GPU. */
  reclaim({ gpus, ...options }: { gpus?: readonly string[]; forMs?: number; graceSeconds?: number }): Hold[] {
    this.#owner.reclaim({ ...options, ...(gpus !== undefined && { gpus: boardsNamed(gpus, this.#doors.boards()) }) });
    return this.holds();
  }

  /** The owner's word goes before the coordinator's: without `gpus` its drain is lifted too. Returns who else keeps what. */
  resume({ gpus }: { gpus?: readonly string[] } = {}): Hold[] {
    if (gpus !== undefined) this.#owner.resume({ gpus: boardsNamed(gpus, this.#doors.boards()) });
    else {
      this.#owner.resume();
      this.#coordinator.resume();
    }
    return this.holds();
  }

  /** Throws `policy_denied` where the provider does not let the coordinator take work back. */
  coordinatorDrain(options: { graceSeconds?: number }): void {
    this.requireCoordinator();
    this.#coordinator.drain(options);
  }

  coordinatorResume(): void {
    this.#coordinator.resume();
  }

  requireCoordinator(): void {
    if (this.#doors.config.preemption.coordinator) return;
    const message =
      "preemption.coordinator is false: the owner of this node lets only workloads be released, not preempted";
    throw new GpunodeError("policy_denied", message);
  }

  [Symbol.dispose](): void {
    this.#owner[Symbol.dispose]();
    this.#register[Symbol.dispose]();
  }

  #raise(source: ClaimSource) {
    return this.#register.raise.bind(this.#register, source);
  }
}

/** UUIDs of the GPUs that are named by index or UUID. Throws `no_matching_gpu` with those there are. */
function boardsNamed(names: readonly string[], boards: readonly Gpu[]): string[] {
  return names.map((name) => {
    const board = boards.find(({ index, uuid }) => name === String(index) || name.toLowerCase() === uuid.toLowerCase());
    if (board !== undefined) return board.uuid;
    const there = boards.length === 0 ? "none" : boards.map(({ index }) => index).join(", ");
    throw new GpunodeError("no_matching_gpu", `there is no GPU ${name.slice(0, 80)}; this machine has: ${there}`);
  });
}
