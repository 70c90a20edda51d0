import { GpunodeError } from "../protocol/errors.ts";
import type { EventBody } from "../protocol/event.ts";
import type { Workload } from "../protocol/workload.ts";
import type { Holders } from "./allocate.ts";
import { DesiredSet } from "./desired-set.ts";
import { enforceLeases } from "./enforce-leases.ts";
import { forgetEnded, type Running } from "./forget-ended.ts";
import type { KeptLogs } from "./kept-logs.ts";
import { type Limits, limitsOf } from "./limits.ts";
import { type LostDoors, removeStrays, tellUnreadable } from "./lost-records.ts";
import type { Engine, Journal, JournalRow, Log, SignatureCheck } from "./needs.ts";
import { lendable, type NodeFactsDoors, nodeFacts } from "./node-facts.ts";
import { WorkloadOutput } from "./output.ts";
import { PortBook } from "./port-range.ts";
import { type Change, type PreemptDoors, type PreemptWhy, planPreemption, preempt, withdraw } from "./preempt.ts";
import { admitByPriority, takeOver } from "./priority.ts";
import { eventOf, newRecord, recordKey, rejectedRecord, type Secrets, secretsOf, WorkloadRecord } from "./record.ts";
import { Runner, type RunnerDoors } from "./runner.ts";
import { isTerminal } from "./state.ts";
import { stopOrder, withNotice } from "./stop-order.ts";
import { gpusFree, holdersOf, holdsAny, othersHolding } from "./who-holds.ts";

const LEASE_CHECK_MS = 1000;
/** What a `sync` asked for and could not be done at once (engine away, draining, disk full) is tried again so often. */
const RETRY_MS = 5000;

export interface SupervisorDoors extends NodeFactsDoors {
  engine: Engine;
  journal: Journal;
  log: Log;
  keptLogs: KeptLogs;
  /** The wall clock, for what is told; milliseconds since the epoch. */
  now(): number;
  /** The clock for deadlines, which no step of the wall clock moves; milliseconds since the epoch. */
  steady(): number;
  requireSignature?: SignatureCheck;
  nodeId: string;
  driver: RunnerDoors["driver"];
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
  readonly #runners = new Map<string, Running>();
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
        this.#doors.log.error(
          { key: row.key },
          "a workload record on disk cannot be read; it is told as lost and its container is removed. Look after the disk",
        );
        this.#attempt({ key: row.key }, () => tellUnreadable(row.key, this.#lostDoors()));
      }
    }
    this.#leaseTimer = setInterval(() => enforceLeases(this.runners(), this.#doors), LEASE_CHECK_MS);
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
    await removeStrays(this.#lostDoors());
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
    return holdersOf(this.runners(), except);
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
    const { gpus, limits, victims } = admitByPriority(
      workload,
      nodeFacts(workload.id, this.runners(), this.#doors),
      this.records(),
    );
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

  /** One that has ended already: it is told within the agent, and its container, where there is one, is seen off. */
  #beginEnded(record: WorkloadRecord): void {
    this.#begin(record, undefined);
    this.#tellChanged(record);
  }

  #lostDoors(): LostDoors {
    return {
      ...this.#doors,
      isKnown: (key) => this.#runners.has(key),
      begin: (record) => this.#beginEnded(record),
    };
  }

  #runnerDoors(): RunnerDoors {
    const { gpus, keptLogs } = this.#doors;
    return {
      ...this.#doors,
      gpus: (uuids) => gpus().filter((gpu) => holdsAny(gpu, uuids)),
      limits: (record) => this.limits(record),
      gpusFree: (record, signal) => gpusFree(record, this.runners(), signal),
      pickPorts: (record) => this.#ports.pick(record, this.#doors.policy, () => othersHolding(record, this.runners())),
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

  /** What a workload is held to; the record of an older release does not say it. */
  limits({ limits, spec }: WorkloadRecord): Limits {
    return limits ?? limitsOf(spec, lendable(this.#doors));
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
    const record = rejectedRecord(workload, error, this.#doors.now());
    this.#doors.journal.commit({
      put: [{ key: recordKey(record), body: record }],
      remove: [],
      events: [eventOf(record)],
    });
    this.#beginEnded(record);
  }

  /** The newest generation of what is still wanted; before the first `sync` nobody knows what that is. */
  #isRemembered({ id, generation }: WorkloadRecord): boolean {
    const isWanted = this.#desired.wants(id);
    if (isWanted === undefined) return true;
    return isWanted && this.#latest(id)?.runner.record.generation === generation;
  }

  /** Forgets ended workloads nobody asks for any more. */
  #sweep(): void {
    forgetEnded(this.#runners, {
      ...this.#doors,
      isRemembered: (record) => this.#isRemembered(record),
      leaving: this.#detach.signal,
      drop: (key) => {
        const wasThere = this.#runners.delete(key);
        if (wasThere) this.#ports.forget(key);
        return wasThere;
      },
    });
  }
}
