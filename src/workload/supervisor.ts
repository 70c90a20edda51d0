import { GpunodeError } from "../protocol/errors.ts";
import type { EventBody } from "../protocol/event.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { Workload } from "../protocol/workload.ts";
import { orAborted } from "./abort.ts";
import type { Policy } from "./admit.ts";
import type { Holders } from "./allocate.ts";
import { DesiredSet } from "./desired-set.ts";
import type { KeptLogs } from "./kept-logs.ts";
import { silenceEnds } from "./lease.ts";
import { type Limits, limitsOf } from "./limits.ts";
import {
  type Engine,
  type Journal,
  type JournalRow,
  LABEL_GENERATION,
  LABEL_WORKLOAD,
  type Log,
  type SignatureCheck,
  type WorkloadNetworks,
} from "./needs.ts";
import { WorkloadOutput } from "./output.ts";
import { PortBook } from "./port-range.ts";
import { type Change, type PreemptDoors, type PreemptWhy, planPreemption, preempt, withdraw } from "./preempt.ts";
import { admitByPriority, takeOver } from "./priority.ts";
import {
  eventOf,
  type Lost,
  lostRecord,
  recordKey,
  type Secrets,
  type StoredWorkload,
  secretsOf,
  WorkloadRecord,
} from "./record.ts";
import { Runner, type RunnerDoors } from "./runner.ts";
import { isTerminal } from "./state.ts";
import { stopOrder, withNotice } from "./stop-order.ts";

/** Ended workloads stay listed until the coordinator no longer wants them, and this many of the newest anyway. */
const KEEP_ENDED = 100;
const LEASE_CHECK_MS = 1000;
/** What a `sync` asked for and could not be done at once (engine away, draining, disk full) is tried again so often. */
const RETRY_MS = 5000;

export interface SupervisorDoors {
  engine: Engine;
  journal: Journal;
  log: Log;
  keptLogs: KeptLogs;
  /** The wall clock, for what is told; milliseconds since the epoch. */
  now(): number;
  /** The clock for deadlines, which no step of the wall clock moves; milliseconds since the epoch. */
  steady(): number;
  policy: Policy;
  requireSignature?: SignatureCheck;
  nodeId: string;
  /** Absent where workloads are on the engine's default bridge. */
  networks?: WorkloadNetworks;
  host: { architecture: string; cpus: number; memoryMiB: number };
  driver: RunnerDoors["driver"];
  gpus(): readonly Gpu[];
  /** What is kept from being lent, and why: the whole node, or boards by UUID. */
  held(): { node?: string; gpus: ReadonlyMap<string, string> };
  /** Why the engine can't be used; undefined where it can. */
  engineProblem(): string | undefined;
  /** What the engine lacks that no workload may be without; undefined where it has all. */
  engineLacks?(): string | undefined;
  diskFreeMiB(): number | undefined;
  /** When the last frame of a coordinator was read, by the steady clock; undefined while connected. */
  silentSince(): number | undefined;
  /** Something a snapshot shows has changed. */
  changed(record: WorkloadRecord): void;
  progress: RunnerDoors["progress"];
}

/**
 * The set of workloads on this node. It decides what is let in and what has to end, and is the only one who knows who
 * holds which GPU; each workload's life is its own runner's business.
 */
export class Supervisor implements AsyncDisposable {
  readonly #doors: SupervisorDoors;
  readonly #runners = new Map<string, { runner: Runner; done: Promise<void> }>();
  readonly #detach = new AbortController();
  readonly output: WorkloadOutput;
  readonly #desired: DesiredSet;
  #leaseTimer: NodeJS.Timeout | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  readonly #ports = new PortBook();

  constructor(doors: SupervisorDoors) {
    this.#doors = doors;
    this.#desired = new DesiredSet({
      ...doors,
      runners: () => this.runners(),
      assign: (workload) => this.assign(workload),
      reject: (workload, error) => this.#reject(workload, error),
      takesAnything: () => doors.held().node === undefined && doors.engineProblem() === undefined,
      attempt: (fields, act) => this.#attempt(fields, act),
      isKnown: (key) => this.#runners.has(key),
    });
    this.output = new WorkloadOutput(doors.engine, doors.keptLogs, (id) => this.#shown(id));
  }

  /**
   * Takes up what an earlier agent left: every record on disk gets its runner back, and a container of ours without a
   * record (its row was lost with the disk) is removed. Call once, before anything else.
   */
  async restore(): Promise<void> {
    for (const row of this.#doors.journal.rows()) {
      const parsed = WorkloadRecord.safeParse(row.body);
      if (parsed.success) this.#begin(parsed.data, undefined);
      else {
        this.#doors.log.error({ key: row.key }, "a workload record on disk cannot be read; it is told as lost");
        const [, id = "", generation] = /^(.+)#(\d+)$/.exec(row.key) ?? [];
        this.#attempt({ key: row.key }, () =>
          this.#lose({ id, generation: Number(generation) }, "its record on the node's disk cannot be read", row.key),
        );
      }
    }
    this.#leaseTimer = setInterval(() => this.#enforceLeases(), LEASE_CHECK_MS);
    this.#leaseTimer.unref();
    this.#retryTimer = setInterval(() => this.#desired.retry(), RETRY_MS);
    this.#retryTimer.unref();
    await this.removeStrays();
  }

  /**
   * Ends what containers with this node's label run and no record knows: the record was lost with the disk. Does nothing where the
   * engine is away; to be called again when it is back.
   */
  async removeStrays(): Promise<void> {
    const { engine, nodeId, log } = this.#doors;
    try {
      for (const container of await engine.list(nodeId)) {
        const id = container.labels[LABEL_WORKLOAD] ?? "";
        const generation = Number(container.labels[LABEL_GENERATION]);
        if (this.#runners.has(recordKey({ id, generation }))) continue;
        log.warn({ container: container.name, workload: id }, "removing a container of ours that no record knows");
        const message = "the node has lost its record of this workload; its container is removed";
        if (!this.#lose({ id, generation, containerId: container.id, gpus: container.gpus }, message))
          await engine.remove(container.id);
      }
    } catch (error) {
      log.debug({ err: error }, "could not look for stray containers");
    }
  }

  /** Tells a generation as lost and sees its container off; false where it can be none of ours. `key` is an old row that goes. */
  #lose(of: Lost, message: string, key?: string): boolean {
    const record = lostRecord(of, { now: this.#doors.now(), message });
    if (record === undefined) {
      if (key !== undefined) this.#doors.journal.commit({ put: [], remove: [key], events: [] });
      return false;
    }
    this.#doors.journal.commit({
      put: [{ key: recordKey(record), body: record }],
      remove: key === undefined || key === recordKey(record) ? [] : [key],
      events: [eventOf(record)],
    });
    this.#begin(record, undefined);
    this.#tellChanged(record);
    return true;
  }

  /** All workloads known, each in its newest generation first. */
  runners(): Runner[] {
    return [...this.#runners.values()].map(({ runner }) => runner);
  }

  records(): WorkloadRecord[] {
    return this.runners().map((runner) => runner.record);
  }

  /**
   * Who holds which GPU or MIG instance now. A workload that is being ended no longer holds its own; one that has ended and whose
   * container may live still does.
   */
  holders(except?: string): Holders {
    const holders = new Map<string, string>();
    for (const { record, isOver } of this.runners()) {
      const { id, gpus, stop } = record;
      if (isOver || stop !== undefined || id === except) continue;
      for (const uuid of gpus) holders.set(uuid, id);
    }
    return holders;
  }

  /**
   * Takes a workload in, or says why not by throwing `GpunodeError`. On disk when this returns. The same id and generation
   * again changes nothing; a higher generation ends the one before it and follows when that has ended. Where its GPUs are held by
   * preemptible workloads of lower priority these are preempted, and it follows when they have ended.
   */
  assign(workload: Workload): void {
    const known = this.#latest(workload.id)?.runner;
    if (known !== undefined) {
      const { generation } = known.record;
      if (generation === workload.generation) {
        known.giveSecrets(secretsOf(workload));
        this.#desired.add(workload.id);
        return;
      }
      if (generation > workload.generation) {
        throw new GpunodeError(
          "stale_generation",
          `generation ${workload.generation} of ${workload.id} is older than ${generation}, which this node has`,
          { details: { asked: workload.generation, known: generation } },
        );
      }
    }
    const { gpus, limits, victims } = admitByPriority(workload, this.#facts(workload.id), this.records());
    const record = { ...newRecord(workload, gpus, this.#doors.now()), limits };
    const replaced = this.#live(workload.id).flatMap((runner) => {
      const changed = runner.recordWith(stopOrder(runner.record, "replaced"));
      return changed === undefined ? [] : [{ runner, record: changed }];
    });
    const outranked = this.runners().filter((runner) => victims.includes(runner.record));
    const notice = planPreemption(outranked, takeOver(workload), this.#preemptDoors());
    this.#commitChanges([...replaced, ...notice.changes], {
      put: [{ key: recordKey(record), body: record }],
      events: [...notice.events, eventOf(record)],
    });
    this.#desired.add(workload.id);
    this.#begin(record, secretsOf(workload));
    this.#doors.log.info(
      { workload: record.id, generation: record.generation, image: record.spec.image },
      "workload accepted",
    );
    this.#tellChanged(record);
  }

  /**
   * The complete desired set. What is not in it ends, what matches stays, what is missing starts; an entry that can't be
   * taken is told by a `rejected` event and harms no other. Where the disk refuses, or the engine is away, or the node drains,
   * what could not be done is tried again until the next `sync`.
   */
  sync(entries: readonly unknown[]): void {
    this.#desired.replace(entries);
    this.#sweep();
  }

  /** The coordinator no longer wants it. Throws `unknown_workload`. */
  release(id: string, graceSeconds?: number): void {
    // Asked for and not begun: then there is nothing to end, and it must not begin later.
    if (!this.#desired.isWaiting(id)) this.#known(id);
    for (const runner of this.#live(id)) runner.order(stopOrder(runner.record, "released", graceSeconds));
    this.#desired.delete(id);
  }

  /**
   * Takes the GPUs of workloads back, or gives them notice of it. Returns how many were told; ids that have ended already are left
   * out. Throws `unknown_workload`, and where the disk refuses.
   */
  preempt(ids: readonly string[], why: PreemptWhy): number {
    return preempt(ids, why, this.#preemptDoors());
  }

  /** Takes notices back whose end has not begun. Returns how many were told. Throws as `preempt` does. */
  withdraw(ids: readonly string[], message: string): number {
    return withdraw(ids, message, this.#preemptDoors());
  }

  /** Leaves without touching what runs: the next agent takes it up again. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#leaseTimer);
    clearInterval(this.#retryTimer);
    this.#detach.abort(new Error("the agent is leaving"));
    await Promise.all([...this.#runners.values()].map(({ done }) => done));
  }

  // ------------------------------------------------------------------ inside

  /** Changed records and what belongs to them, in one commit: a crash finds all of it or nothing. */
  #commitChanges(changes: readonly Change[], beside: { put: JournalRow[]; events: readonly EventBody[] }): void {
    const rows = changes.map(({ record }) => ({ key: recordKey(record), body: record }));
    const put = [...rows, ...beside.put];
    const events = this.#doors.journal.commit({ put, remove: [], events: [...beside.events] });
    const notice = events.find((event) => event.kind === "preemption" && event.phase === "notice");
    for (const { runner, record } of changes) runner.adopt(withNotice(record, notice?.seq));
  }

  #preemptDoors(): PreemptDoors {
    return {
      now: this.#doors.now,
      steady: this.#doors.steady,
      withinMs: this.#doors.policy.preemptWithinMs,
      live: (id) => {
        this.#known(id);
        return this.#live(id);
      },
      commit: (changes, events) => this.#commitChanges(changes, { put: [], events }),
    };
  }

  /** All generations of a workload that have not ended. */
  #live(id: string): Runner[] {
    return this.runners().filter(({ record }) => record.id === id && !isTerminal(record.state));
  }

  #begin(record: WorkloadRecord, secrets: Secrets | undefined): void {
    const runner = new Runner(record, secrets, this.#runnerDoors());
    const done = runner.run(this.#detach.signal);
    this.#runners.set(recordKey(record), { runner, done });
  }

  #runnerDoors(): RunnerDoors {
    const { gpus, keptLogs } = this.#doors;
    return {
      ...this.#doors,
      gpus: (uuids) => gpus().filter((gpu) => holdsAny(gpu, uuids)),
      limits: (record) => this.limits(record),
      gpusFree: (record, signal) => this.#gpusFree(record, signal),
      pickPorts: (record) => this.#ports.pick(record, this.#doors.policy, () => this.#others(record)),
      keepLogs: async (record, container, signal) => {
        try {
          await keptLogs.keep(record, container, signal);
        } finally {
          await this.output.readersGone(record, signal);
        }
      },
      changed: (record) => {
        this.#tellChanged(record);
        if (isTerminal(record.state)) this.#sweep();
      },
    };
  }

  /** What happened stands, whatever those who are told make of it. */
  #tellChanged(record: WorkloadRecord): void {
    this.output.changed();
    this.#attempt({ workload: record.id }, () => this.#doors.changed(record));
  }

  /** Does what one entry needs; its failure is logged and harms no other. True where it was done. */
  #attempt(fields: object, act: () => void): boolean {
    try {
      act();
      return true;
    } catch (error) {
      this.#doors.log.error({ ...fields, err: error }, "a step of the workload set failed; the others go on");
      return false;
    }
  }

  /** Waits for those who hold the same GPUs or are an earlier generation of the same workload. */
  async #gpusFree(record: WorkloadRecord, signal: AbortSignal): Promise<void> {
    const before = this.runners().filter(
      ({ record: other, isOver }) =>
        !isOver &&
        recordKey(other) !== recordKey(record) &&
        ((other.id === record.id && other.generation < record.generation) ||
          ((other.stop !== undefined || isTerminal(other.state)) &&
            other.gpus.some((uuid) => record.gpus.includes(uuid)))),
    );
    await orAborted(Promise.all(before.map((runner) => runner.ended)), signal);
  }

  /** What a workload is held to; the record of an older release does not say it. */
  limits({ limits, spec }: WorkloadRecord): Limits {
    return limits ?? limitsOf(spec, this.#lendable());
  }

  #lendable() {
    const { policy, host, diskFreeMiB } = this.#doors;
    const disk = diskFreeMiB();
    const { cpus, memoryMiB } = host;
    return { policy, cpus, memoryMiB, ...(disk !== undefined && { diskFreeMiB: disk }) };
  }

  #facts(id: string) {
    const { gpus, engineProblem, engineLacks, networks } = this.#doors;
    const problem = engineProblem();
    const isolationProblem = networks?.problem();
    const lacks = engineLacks?.();
    const held = this.#doors.held();
    return {
      gpus: gpus(),
      holders: new Map([...this.holders(id), ...held.gpus]),
      kept: held.gpus,
      ...this.#lendable(),
      ...(held.node !== undefined && { heldBack: held.node }),
      ...(problem !== undefined && { engineProblem: problem }),
      ...(lacks !== undefined && { engineLacks: lacks }),
      ...(isolationProblem !== undefined && { isolationProblem }),
      live: this.records()
        .filter((record) => !isTerminal(record.state) && record.stop === undefined && record.id !== id)
        .map(({ id: other, spec }) => ({
          id: other,
          memoryMiB: spec.resources.memoryMiB ?? 0,
          ports: spec.ports.length,
        })),
    };
  }

  /** What else may still hold something on this node. */
  #others(record: WorkloadRecord): WorkloadRecord[] {
    return this.runners()
      .filter(({ record: other, isOver }) => !isOver && recordKey(other) !== recordKey(record))
      .map(({ record: other }) => other);
  }

  #latest(id: string): { runner: Runner } | undefined {
    let found: { runner: Runner } | undefined;
    for (const entry of this.#runners.values()) {
      const { record } = entry.runner;
      if (record.id === id && record.generation > (found?.runner.record.generation ?? -1)) found = entry;
    }
    return found;
  }

  /** Whose output a reader means: the newest generation that lives, or else the newest. */
  #shown(id: string): WorkloadRecord | undefined {
    const live = this.#live(id).sort((a, b) => b.record.generation - a.record.generation);
    return (live[0] ?? this.#latest(id)?.runner)?.record;
  }

  #known(id: string): Runner {
    const found = this.#latest(id)?.runner;
    if (found === undefined) throw new GpunodeError("unknown_workload", `this node has no workload "${id}"`);
    return found;
  }

  #reject(workload: Workload, error: GpunodeError): void {
    this.#doors.log.warn({ workload: workload.id, code: error.code }, `workload refused: ${error.message}`);
    // An older generation than ours is no new end of anything: ours goes on.
    if (error.code === "stale_generation") return;
    const now = this.#doors.now();
    const record: WorkloadRecord = {
      ...newRecord(workload, [], now),
      state: "rejected",
      reason: error.code,
      message: error.message,
      finishedAt: now,
    };
    this.#doors.journal.commit({
      put: [{ key: recordKey(record), body: record }],
      remove: [],
      events: [eventOf(record)],
    });
    this.#begin(record, undefined);
    this.#tellChanged(record);
  }

  #enforceLeases(): void {
    const silentSince = this.#doors.silentSince();
    if (silentSince === undefined) return;
    for (const { runner } of this.#runners.values()) {
      const { record } = runner;
      if (isTerminal(record.state) || record.stop !== undefined) continue;
      if (!silenceEnds(record, silentSince, this.#doors.steady())) continue;
      const message = `no word from the coordinator for ${record.spec.onDisconnect.afterSeconds} s`;
      try {
        runner.order({
          outcome: "stopped",
          reason: "disconnected",
          message,
          graceSeconds: record.spec.stop.graceSeconds,
        });
      } catch (error) {
        this.#doors.log.error({ err: error, workload: record.id }, "could not record the end of a lease; trying again");
      }
    }
  }

  /** The newest generation of what is still wanted; before the first `sync` nobody knows what that is. */
  #isRemembered({ id, generation }: WorkloadRecord): boolean {
    const isWanted = this.#desired.wants(id);
    if (isWanted === undefined) return true;
    return isWanted && this.#latest(id)?.runner.record.generation === generation;
  }

  /** Forgets ended workloads nobody asks for any more. */
  #sweep(): void {
    const ended = [...this.#runners.entries()]
      .filter(([, { runner }]) => isTerminal(runner.record.state) && !this.#isRemembered(runner.record))
      .sort(([, a], [, b]) => (b.runner.record.finishedAt ?? 0) - (a.runner.record.finishedAt ?? 0));
    for (const [key, { runner, done }] of ended.slice(KEEP_ENDED)) {
      void this.#forget(key, runner, done);
    }
  }

  async #forget(key: string, runner: Runner, done: Promise<void>): Promise<void> {
    // Only when its container is gone: a record is what a restarted agent finds the container by.
    await done;
    if (this.#detach.signal.aborted || !this.#runners.delete(key)) return;
    this.#ports.forget(key);
    try {
      this.#doors.journal.commit({ put: [], remove: [key], events: [] });
      await this.#doors.keptLogs.forget(runner.record);
    } catch (error) {
      this.#doors.log.debug({ err: error, key }, "could not forget an ended workload; the next agent will");
    }
  }
}

function newRecord(workload: Workload, gpus: string[], now: number): WorkloadRecord {
  const { registryAuth, secretEnv, ...spec }: Workload = workload;
  const stored: StoredWorkload = spec;
  return {
    id: workload.id,
    generation: workload.generation,
    spec: stored,
    state: "accepted",
    hadSecrets: registryAuth !== undefined || Object.keys(secretEnv).length > 0,
    gpus,
    ports: [],
    restarts: 0,
    timings: {},
    acceptedAt: now,
  };
}

function holdsAny(gpu: Gpu, uuids: readonly string[]): boolean {
  return uuids.includes(gpu.uuid) || (gpu.mig?.instances.some(({ uuid }) => uuids.includes(uuid)) ?? false);
}
