import { randomBytes } from "node:crypto";
import type { Problem } from "../protocol/agent-frames.ts";
import { CLOSE, MAX_FRAME_BYTES } from "../protocol/limits.ts";
import { Workload, type WorkloadInput } from "../protocol/workload.ts";
import { ApiError } from "./api-error.ts";
import { candidateOf } from "./candidate.ts";
import type { CoordinatorDatabase, StoreResult } from "./database.ts";
import type { Log } from "./log.ts";
import { type Candidate, explain, match } from "./match.ts";
import { matchByPriority } from "./match-by-priority.ts";
import { Refusals } from "./refusals.ts";
import type { Session } from "./session.ts";
import type { CommandAnswer, CommandBody, SessionDoors } from "./session-doors.ts";
import { isEnd, type PlacementState } from "./states.ts";
import type { OnPreempt, WorkloadRecord } from "./workload-table.ts";

/**
 * A workload as it is submitted: the generation is the coordinator's, the id may be left to it. `onPreempt` says what follows a
 * preemption: it ends (the default), or waits for its next generation.
 */
export type Submission = Omit<WorkloadInput, "id" | "generation"> & { id?: string; onPreempt?: OnPreempt };

/**
 * Who runs what. Holds the connected nodes' sessions (the newest of each) and decides, each time something changed,
 * where the workloads without a node go: a submission, an advertisement, an end, a refusal, and nothing else, so there is
 * no timer here.
 *
 * A workload is put on a node by writing it down first (`assigned`) and sending `assign` then; if the session ends in
 * between, the `sync` of the next one says the same. A node that refuses it is not asked again until it advertises anew.
 * One that was preempted and is to be resumed (`onPreempt`) goes back to those without a node.
 * A workload is never run elsewhere because its node is silent: it may still be running there. The operator sees it as
 * `lost` after the lease and may release it or submit it again.
 */
export class Schedule implements SessionDoors {
  /** Released workloads a node did not name when it came: only for these silence is an answer. */
  readonly #unheardOf = new WeakMap<Session, WorkloadRecord[]>();
  readonly sessions = new Map<string, Session>();
  readonly #database: CoordinatorDatabase;
  readonly #leaseMs: number;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #startedMs: number;
  /** node → when two agents were last seen with its key at the same time, milliseconds since the epoch. */
  readonly #twice = new Map<string, number>();
  readonly #refusals = new Refusals();
  /** workload → why it has no node yet. */
  readonly #waitingFor = new Map<string, string>();
  /** Called after anything changed; those who follow events look then. */
  readonly #onChange: () => void;

  constructor(options: {
    database: CoordinatorDatabase;
    leaseSeconds: number;
    log: Log;
    now: () => number;
    onChange: () => void;
  }) {
    this.#database = options.database;
    this.#leaseMs = options.leaseSeconds * 1000;
    this.#log = options.log;
    this.#now = options.now;
    this.#startedMs = options.now();
    this.#onChange = options.onChange;
  }

  // ------------------------------------------------------------- the operator's side

  /**
   * Writes a workload down and tries to place it. The id of one that has ended (or is lost) may be used again: that is
   * its next generation. Throws `conflict` where it is still live.
   */
  submit(submission: Submission): WorkloadRecord {
    const id = submission.id ?? `w-${randomBytes(6).toString("hex")}`;
    const known = this.#database.workloads.get(id);
    if (known !== undefined) {
      const { state } = this.standing(known);
      if (!isEnd(state)) throw new ApiError("conflict", `workload ${id} is ${state}: release it, or take another id`);
    }
    const { onPreempt = "end", ...wanted } = submission;
    const workload = Workload.parse({ ...wanted, id, generation: (known?.generation ?? 0) + 1 });
    this.#database.workloads.put(workload, { onPreempt });
    this.#forget(id);
    this.#log.info({ workload: id, generation: workload.generation, image: workload.image }, "workload submitted");
    this.place();
    return this.#get(id);
  }

  /**
   * No longer wanted. Where a node has it, the node ends it and says so by an event; one that is not connected learns it
   * from the next `sync`. Releasing twice is no error.
   */
  async release(id: string, options: { graceSeconds?: number }): Promise<WorkloadRecord> {
    const record = this.#get(id);
    if (record.endedAt !== undefined) return record;
    this.#database.workloads.release(id);
    if (record.node === undefined) this.#end(id, { state: "stopped", reason: "released" });
    else if (this.standing(record).state === "lost") this.#end(id, { state: "lost", reason: "released" });
    else {
      const answer = await this.#send(record.node, { type: "release", workload: id, ...options });
      const neverArrived = !answer.ok && answer.why === "refused" && answer.error.code === "unknown_workload";
      if (!neverArrived && !answer.ok && answer.why !== "gone") demand(answer);
      if (neverArrived && this.#isStill(record)) this.#end(id, { state: "stopped", reason: "released" });
    }
    return this.#get(id);
  }

  /** Tells the node to take its GPUs back, with notice and checkpoint. Throws where it has no node or that says no. */
  async preempt(id: string, options: { graceSeconds?: number; reason?: string }): Promise<WorkloadRecord> {
    const record = this.#get(id);
    if (record.endedAt !== undefined) throw new ApiError("conflict", `workload ${id} has ended (${record.state})`);
    if (record.node === undefined) throw new ApiError("conflict", `workload ${id} is pending: no node has it`);
    demand(await this.#send(record.node, { type: "preempt", workload: id, ...options }));
    return this.#get(id);
  }

  /** Throws `node_offline` where it is not connected: the word would be lost. */
  async command(node: string, command: CommandBody): Promise<void> {
    if (this.#database.node(node) === undefined) throw unknownNode(node, this.#database);
    demand(await this.#send(node, command));
  }

  /** How it stands for the operator: live on a node that has been silent for longer than the lease is `lost`. */
  standing(record: WorkloadRecord): { state: PlacementState; message?: string } {
    if (record.endedAt !== undefined || record.node === undefined) {
      const message = this.#waitingFor.get(record.id);
      return { state: record.state, ...(message !== undefined && record.endedAt === undefined && { message }) };
    }
    const silentMs = this.#silentMs(record.node);
    if (silentMs <= this.#leaseMs) return { state: record.state };
    const message = `node ${record.node} has been silent for ${Math.round(silentMs / 1000)} s; it was ${record.state} then`;
    return { state: "lost", message };
  }

  #silentMs(node: string): number {
    if (this.sessions.has(node)) return 0;
    // While the coordinator itself was away, no node could speak.
    const lastSeenMs = Date.parse(this.#database.node(node)?.lastSeenAt ?? "") || 0;
    return this.#now() - Math.max(lastSeenMs, this.#startedMs);
  }

  // ------------------------------------------------------------- the nodes' side

  welcomed(session: Session): void {
    const there = new Set(session.hello?.workloads.map(({ id }) => id));
    const released = this.#database.workloads.placed(session.nodeId).filter(({ wanted }) => wanted !== "run");
    this.#unheardOf.set(
      session,
      released.filter(({ id }) => !there.has(id)),
    );
    const { nodeId, replaces = nodeId } = session;
    const older = [...new Set([nodeId, replaces])].flatMap((id) => this.sessions.get(id) ?? []);
    this.sessions.delete(replaces);
    this.sessions.set(nodeId, session);
    for (const each of older) each.close(CLOSE.replaced, "replaced by a newer session of this node");
    this.#log.info({ node: session.nodeId, name: session.hello?.node.name }, "node connected");
  }

  desired(session: Session): Workload[] {
    this.#settleReleased(session);
    return this.#database.workloads
      .placed(session.nodeId)
      .filter((record) => record.wanted === "run")
      .flatMap((record) => this.#full(record) ?? []);
  }

  advertised(session: Session): void {
    this.#onChange();
    if (session.isSynced) this.place();
  }

  stored(session: Session, result: StoreResult): void {
    for (const { workload, effect, message } of result.effects) {
      if (effect !== "none") session.progress.delete(workload);
      if (effect === "ended") this.#forget(workload);
      if (effect === "rejected")
        this.#refusals.note(workload, session, `rejected it: ${message ?? "without a word why"}`);
      if (effect === "requeued") this.#log.info({ workload }, `workload preempted, and waits again: ${message ?? ""}`);
    }
    this.#settleReleased(session);
    if (result.stored > 0) this.#onChange();
    if (result.effects.some(({ effect }) => effect !== "none" && effect !== "changed")) this.place();
  }

  closed(session: Session, why: { code: number; reason: string }): void {
    this.#log.info({ node: session.nodeId, code: why.code, reason: why.reason }, "node disconnected");
    if (this.sessions.get(session.nodeId) !== session) return;
    this.sessions.delete(session.nodeId);
    this.#database.seen(session.nodeId);
    this.#onChange();
  }

  outlived(session: Session): void {
    this.#twice.set(session.nodeId, this.#now());
    this.#log.error({ node: session.nodeId, name: session.hello?.node.name }, USED_TWICE);
    this.#onChange();
  }

  /** What the coordinator itself has found out about a node. */
  problemsOf(node: string): Problem[] {
    const atMs = this.#twice.get(node);
    if (atMs === undefined || this.#now() - atMs > TOLD_FOR_MS) return [];
    return [{ code: "key_used_twice", message: `${USED_TWICE} (last seen ${new Date(atMs).toISOString()})` }];
  }

  /**
   * Once a node has told all its log held when it came, a released workload it never spoke of in `hello` is not there and
   * no event about it can come any more.
   */
  #settleReleased(session: Session): void {
    const { hello } = session;
    if (hello === undefined || session.acked < hello.events.newest) return;
    const unheardOf = this.#unheardOf.get(session) ?? [];
    this.#unheardOf.delete(session);
    for (const { id } of unheardOf) {
      const record = this.#database.workloads.get(id);
      if (record === undefined || record.wanted === "run" || record.endedAt !== undefined) continue;
      this.#end(record.id, { state: record.state === "assigned" ? "stopped" : "lost", reason: "released" });
    }
  }

  // ------------------------------------------------------------- placing

  /**
   * Tries each workload without a node. What fits nowhere takes the GPUs of lower priorities, if that helps; else it waits, with the
   * reason for the operator.
   */
  place(): void {
    for (const record of this.#database.workloads.pending()) {
      const candidates = this.#candidates(record);
      const asItIs = match(record.spec, candidates);
      const found = asItIs.fits ? asItIs : (matchByPriority(record.spec, candidates) ?? asItIs);
      if (!found.fits) {
        this.#waitingFor.set(record.id, explain(found.reasons));
        continue;
      }
      const { node, gpus, takesFrom } = found;
      const session = this.sessions.get(node);
      const workload = this.#full(record);
      if (session === undefined || workload === undefined) continue;
      this.#database.workloads.assign(record.id, node, gpus);
      this.#waitingFor.delete(record.id);
      this.#log.info({ workload: record.id, generation: record.generation, node, takesFrom }, "workload assigned");
      void this.#assign(session, workload);
    }
    this.#onChange();
  }

  /** Settles by itself; never rejects. */
  async #assign(session: Session, workload: Workload): Promise<void> {
    const answer = await session.command({ type: "assign", workload });
    if (answer.ok || answer.why === "gone") return;
    if (answer.why === "silent") {
      // Whether the node has it is unknown now; the next session's `sync` makes it known.
      session.close(CLOSE.badMessage, answer.error.message);
      return;
    }
    const record = this.#database.workloads.get(workload.id);
    if (record?.generation !== workload.generation || record.node !== session.nodeId || record.state !== "assigned")
      return;
    const { code, message } = answer.error;
    this.#log.info({ workload: workload.id, node: session.nodeId, code }, `node refused the workload: ${message}`);
    if (record.wanted === "stopped") return this.#end(workload.id, { state: "stopped", reason: "released" });
    this.#database.workloads.unplace(workload.id);
    this.#refusals.note(workload.id, session, `refused it: ${message}`);
    this.place();
  }

  #candidates(record: WorkloadRecord): Candidate[] {
    const placed = this.#database.workloads.placed();
    const isOver = (id: string) => this.#database.workloads.get(id)?.endedAt !== undefined;
    return [...this.sessions.values()].flatMap((session) => {
      const { advertisement, nodeId, hello } = session;
      if (advertisement === undefined || hello === undefined || !session.isSynced) return [];
      const here = placed.filter((other) => other.node === nodeId);
      const refusal = this.#refusals.of(record.id, session) ?? this.#tooLarge(record, here);
      return candidateOf({ id: nodeId, name: hello.node.name, advertisement, refusal }, here, isOver);
    });
  }

  /** The desired set of a node must fit into one `sync` frame. */
  #tooLarge(record: WorkloadRecord, here: readonly WorkloadRecord[]): string | undefined {
    const bytes = [record, ...here].reduce((sum, other) => sum + Buffer.byteLength(JSON.stringify(other.spec)), 0);
    // Half, because secrets and escapes are not counted here.
    if (bytes <= MAX_FRAME_BYTES / 2) return undefined;
    return `its desired set would have ${bytes} bytes, at most ${MAX_FRAME_BYTES / 2} are given to one node`;
  }

  /** The workload with its secrets; where the key to those is gone it ends, because it can't be run as it was meant. */
  #full(record: WorkloadRecord): Workload | undefined {
    try {
      return this.#database.workloads.full(record);
    } catch {
      const message = "its secrets can't be read: the key file beside the database is another one; submit it again";
      this.#log.error({ workload: record.id }, message);
      this.#end(record.id, { state: "failed", reason: "secrets_lost", message });
      return undefined;
    }
  }

  #end(id: string, how: { state: "stopped" | "failed" | "lost"; reason: string; message?: string }): void {
    const { state, ...detail } = how;
    this.#database.workloads.end(id, state, detail);
    this.#forget(id);
    this.#onChange();
  }

  #forget(id: string): void {
    this.#refusals.forget(id);
    this.#waitingFor.delete(id);
  }

  #get(id: string): WorkloadRecord {
    const record = this.#database.workloads.get(id);
    if (record === undefined) throw new ApiError("unknown_workload", `there is no workload ${id}`);
    return record;
  }

  /** Whether nothing about it changed while something was awaited. */
  #isStill(record: WorkloadRecord): boolean {
    const now = this.#database.workloads.get(record.id);
    return now?.endedAt === undefined && now?.generation === record.generation && now.node === record.node;
  }

  #send(node: string, command: CommandBody): Promise<CommandAnswer> {
    const session = this.sessions.get(node);
    if (session?.isSynced === true) return session.command(command);
    const error = { code: "internal" as const, message: `node ${node} is not connected` };
    return Promise.resolve({ ok: false, why: "gone", error });
  }
}

const USED_TWICE =
  "two agents use this node's key at the same time and throw each other out: a copy of its state, or a stolen key. Its owner can give it a new one with gpunode enroll --rotate";
/** So long it is remembered to the operator. */
const TOLD_FOR_MS = 3_600_000;

/** Also for one who still has the id of a node's old key. */
export function unknownNode(id: string, { keys }: CoordinatorDatabase): ApiError {
  const now = keys.successor(id);
  const message = now === undefined ? `there is no node ${id}` : `${id} has a new key, and is ${now} now`;
  return new ApiError("unknown_node", message);
}

function demand(answer: CommandAnswer): void {
  if (answer.ok) return;
  const { code, message } = answer.error;
  throw new ApiError(answer.why === "gone" ? "node_offline" : answer.why === "silent" ? "node_silent" : code, message);
}
