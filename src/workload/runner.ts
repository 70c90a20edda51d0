import { setTimeout as sleep } from "node:timers/promises";
import { BUG, type ErrorCode, GpunodeError } from "../protocol/errors.ts";
import type { EventBody } from "../protocol/event.ts";
import type { WorkloadState } from "../protocol/workload.ts";
import {
  type BringUpDoors,
  createContainer,
  markRunning,
  type NodeDoors,
  pullImage,
  restartContainer,
  startContainer,
} from "./bring-up.ts";
import { initComplaint } from "./init-complaint.ts";
import type { ContainerState, Journal, Log } from "./needs.ts";
import { LABEL_GENERATION, LABEL_WORKLOAD } from "./needs.ts";
import { endingOf, isUp, nextStep, type Step } from "./plan.ts";
import { containerName, hidingSecrets, type Secrets, type StopOrder, type WorkloadRecord } from "./record.ts";
import { isTerminal } from "./state.ts";
import { harder } from "./stop-order.ts";
import { takeDown } from "./take-down.ts";
import { type WatchDoors, watchOver } from "./watch-over.ts";
import { JournalRefused, WrittenRecord } from "./written-record.ts";

/**
 * One workload's life. A runner is an actor: one record, one loop, one abort controller. The loop looks at the record and at
 * the container, asks the planner for the one next step, commits it, does it, and looks again; so it makes no
 * difference whether the loop went on or a new agent began it anew.
 *
 * A stop order is committed at once and interrupts whatever the loop is waiting for. Detaching (the agent leaves, the work
 * lives) ends the loop and touches nothing.
 */

/** What a runner needs of the set it belongs to. */
export interface RunnerDoors extends NodeDoors {
  journal: Journal;
  log: Log;
  /** Keeps what the container wrote, and waits for those who still read it; before it is removed. */
  keepLogs(record: WorkloadRecord, container: ContainerState, signal: AbortSignal): Promise<void>;
  /** The record changed; called after the commit. */
  changed(record: WorkloadRecord): void;
  progress(record: WorkloadRecord, currentBytes: number, totalBytes: number): void;
}

/** How long a workload that has not started yet waits for an engine that is away, before it fails. */
const ENGINE_PATIENCE_MS = 60_000;
const RETRY_FIRST_MS = 250;
const RETRY_MOST_MS = 5_000;

/** Codes that mean "this node should not have been asked": nothing ran, the coordinator may place it elsewhere. */
const REJECTING: ReadonlySet<ErrorCode> = new Set([
  "driver_too_old",
  "policy_denied",
  "image_not_allowed",
  // Its container toolkit is missing or broken, or a GPU is gone: the workload is not to blame.
  "no_matching_gpu",
]);

/** Details of an error that are reasons of their own on the wire (docs/protocol.md, section 5). */
const TOLD_REASONS: ReadonlySet<string> = new Set(["wrong_architecture", "command_not_found"]);

export class Runner {
  readonly #doors: RunnerDoors;
  readonly #record: WrittenRecord;
  #secrets: Secrets | undefined;
  #secretsCame = Promise.withResolvers<void>();
  #interrupt = new AbortController();
  #noticeChanged = Promise.withResolvers<void>();
  /** What the step that is tried again failed with. */
  #lastFailure: string | undefined;
  #pull: { currentBytes: number; totalBytes: number } | undefined;
  #engineAwaySince: number | undefined;
  readonly #ended = Promise.withResolvers<void>();
  #isOver = false;
  /** False until one may have been made: by this runner, or by an agent before it whose record is further than a pull. */
  #mayHaveContainer: boolean;

  constructor(record: WorkloadRecord, secrets: Secrets | undefined, doors: RunnerDoors) {
    this.#record = new WrittenRecord(record, doors);
    this.#secrets = secrets;
    this.#doors = doors;
    this.#mayHaveContainer = record.state !== "accepted" && record.state !== "pulling";
    if (isKnownDown(record)) this.#letGo();
  }

  get record(): WorkloadRecord {
    return this.#record.current;
  }

  /** Bytes pulled so far, while a pull is under way. */
  get pull(): { currentBytes: number; totalBytes: number } | undefined {
    return this.#pull;
  }

  /** Resolves when the workload has reached a terminal state and its container is down: its GPUs are free. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** True once `ended` has resolved. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** The coordinator sent the same generation again, with its secrets: a restored runner may need them. */
  giveSecrets(secrets: Secrets): void {
    if (this.#isOver) return;
    this.#secrets ??= secrets;
    this.#secretsCame.resolve();
  }

  /**
   * Orders the workload to end. On disk when this returns, together with `events`; a second order only ever makes the end
   * come sooner. Throws where the disk refuses.
   */
  order(stop: StopOrder, events: readonly EventBody[] = []): void {
    const next = this.recordWith(stop);
    if (next === undefined) return;
    this.#record.save(next, events);
    this.#interrupt.abort();
  }

  /** The record as an order would leave it; undefined where the order changes nothing. */
  recordWith(stop: StopOrder): WorkloadRecord | undefined {
    if (isTerminal(this.record.state)) return undefined;
    const before = this.record.stop;
    const next = before === undefined ? stop : harder(before, stop, this.#doors.steady());
    return next === before ? undefined : { ...this.record, stop: next };
  }

  /**
   * Takes over a record that somebody else has committed, with what else belonged to it. A mere notice does not interrupt what the loop
   * waits for.
   */
  adopt(record: WorkloadRecord): void {
    this.#record.adopt(record);
    if (record.stop !== undefined) this.#interrupt.abort();
    this.#noticeChanged.resolve();
    this.#noticeChanged = Promise.withResolvers();
  }

  /** Lives the workload's life until it is over or `detach` is aborted. Never rejects. */
  async run(detach: AbortSignal): Promise<void> {
    // Linked once for the whole life: `detach` outlives all runners and must not gather something from every turn.
    const leave = () => this.#interrupt.abort(detach.reason);
    detach.addEventListener("abort", leave);
    try {
      await this.#live(detach);
    } finally {
      detach.removeEventListener("abort", leave);
    }
  }

  async #live(detach: AbortSignal): Promise<void> {
    let retryMs = RETRY_FIRST_MS;
    while (!detach.aborted) {
      if (this.#interrupt.signal.aborted) this.#interrupt = new AbortController();
      const { signal } = this.#interrupt;
      try {
        const container = await this.#observe();
        // The record is read after the wait: an order may have come meanwhile.
        if (signal.aborted) continue;
        if (isTerminal(this.record.state) && (container === undefined || !isUp(container))) this.#letGo();
        const step = nextStep(this.record, container);
        if (step.do === "done")
          return await this.#doors.networks?.close(containerName(this.record, this.#doors.nodeId));
        await this.#perform(step, signal, detach);
        this.#engineAwaySince = undefined;
        this.#lastFailure = undefined;
        retryMs = RETRY_FIRST_MS;
      } catch (error) {
        if (detach.aborted) return;
        if (signal.aborted) continue;
        if (!this.#settle(withoutSecrets(error, this.#secrets))) {
          await sleep(retryMs, undefined, { signal }).catch(() => undefined);
          retryMs = Math.min(retryMs * 2, RETRY_MOST_MS);
        }
      }
    }
  }

  /** A step that fails again in the same way has been told of. */
  #sayOnce(level: "warn" | "error", fields: { err: unknown }, sentence: string): void {
    const failure = `${sentence} ${fields.err}`;
    this.#doors.log[failure === this.#lastFailure ? "debug" : level](fields, sentence);
    this.#lastFailure = failure;
  }

  /** Turns an error into an ending where it is one; false where the step is worth another try. */
  #settle(error: unknown): boolean {
    const { log } = this.#doors;
    const fields = { workload: this.record.id, generation: this.record.generation };
    if (error instanceof JournalRefused) {
      const sentence = "the state database refuses writes; trying again, and running work goes on";
      this.#sayOnce("error", { ...fields, err: error.cause }, `${sentence}: make room on the disk of state_dir`);
      return false;
    }
    const known = error instanceof GpunodeError ? error : undefined;
    if (known?.code === "engine_unavailable" && !this.#outOfPatience()) return false;
    // Once it ends anyway, an error on the way (a stop, a remove) is no new ending: the step is tried again.
    if (isTerminal(this.record.state) || this.record.stop !== undefined || this.record.state === "running") {
      this.#sayOnce("warn", { ...fields, err: error }, `a step of ${this.record.id} failed; trying again`);
      return false;
    }
    if (known === undefined) log.error({ ...fields, err: error }, `a workload fails by ${BUG}`);
    const code = known?.code ?? "internal";
    const state: WorkloadState =
      REJECTING.has(code) || known?.details?.reason === "wrong_architecture" ? "rejected" : "failed";
    const detail = known?.details?.reason;
    // The contract's closed list; the engine's finer words stay in the message.
    const reason =
      typeof detail === "string" && TOLD_REASONS.has(detail) ? detail : code === "unsupported" ? "start_failed" : code;
    const message = known?.message ?? "an unexpected error inside gpunode; its log has the details";
    try {
      this.#record.end({ state, reason, message });
    } catch {
      return false;
    }
    return true;
  }

  /** An engine that is away fails only what has not begun; what runs is asked after when it is back. */
  #outOfPatience(): boolean {
    const now = this.#doors.steady();
    this.#engineAwaySince ??= now;
    return this.record.state !== "running" && now - this.#engineAwaySince > ENGINE_PATIENCE_MS;
  }

  async #observe(): Promise<ContainerState | undefined> {
    const { id, generation, state, containerId } = this.record;
    if (containerId !== undefined) return await this.#doors.engine.inspect(containerId);
    if (!this.#mayHaveContainer) return undefined;
    if (isTerminal(state) && this.record.imageId === undefined) return undefined;
    // A create may have happened just before a crash, its id never written down: the name finds it again.
    const found = await this.#doors.engine.inspect(containerName(this.record, this.#doors.nodeId));
    if (found?.labels[LABEL_WORKLOAD] !== id || found.labels[LABEL_GENERATION] !== String(generation)) return undefined;
    return found;
  }

  async #perform(step: Exclude<Step, { do: "done" }>, signal: AbortSignal, detach: AbortSignal): Promise<void> {
    const { engine } = this.#doors;
    switch (step.do) {
      case "pull":
        return await pullImage(this.#record, this.#bringUpDoors(), signal);
      case "create":
        this.#mayHaveContainer = true;
        return await createContainer(this.#record, this.#bringUpDoors(), signal);
      case "start":
        return await startContainer(this.#record, step.container, this.#bringUpDoors(), signal);
      case "markRunning":
        return markRunning(this.#record, step.container, this.#doors);
      case "wait":
        return await watchOver(this.#record, step.container, this.#watchDoors(), signal);
      case "restart":
        return await restartContainer(this.#record, step.container, this.#bringUpDoors(), signal);
      case "stop":
        return await takeDown(this.#record, step.container, this.#doors, signal);
      case "finish":
        return this.#finish(step.container, await initComplaint(step.container, engine, signal));
      case "remove":
        await this.#keepLogs(step.container, detach);
        return await engine.remove(step.container.id);
    }
  }

  #bringUpDoors(): BringUpDoors {
    return {
      ...this.#doors,
      secrets: () => this.#secrets,
      secretsCame: () => this.#secretsCame.promise,
      pulled: (bytes) => {
        this.#pull = bytes;
        if (bytes !== undefined) this.#doors.progress(this.record, bytes.currentBytes, bytes.totalBytes);
      },
    };
  }

  #watchDoors(): WatchDoors {
    return {
      ...this.#doors,
      noticeChanged: () => this.#noticeChanged.promise,
      order: (stop) => this.order(stop),
    };
  }

  /** As well as it can be done: output that cannot be kept (a full disk) must not keep the container too. */
  async #keepLogs(container: ContainerState, detach: AbortSignal): Promise<void> {
    try {
      await this.#doors.keepLogs(this.record, container, detach);
    } catch (error) {
      detach.throwIfAborted();
      this.#doors.log.warn(
        { workload: this.record.id, err: error },
        "the last output of a workload could not be kept: make room on the disk of state_dir",
      );
    }
    detach.throwIfAborted();
  }

  #letGo(): void {
    this.#isOver = true;
    this.#secrets = undefined;
    this.#ended.resolve();
  }

  /** Its container is seen to be down: with the record's end it holds nothing any more. */
  #finish(container: ContainerState | undefined, complaint: Awaited<ReturnType<typeof initComplaint>>): void {
    this.#isOver = true;
    try {
      const { message, ...ending } = endingOf(this.record, container);
      const why = ending.reason === "exit_code" ? complaint : undefined;
      // The engine's or the init's words on a failed start may quote what the container was made of.
      const words = why?.message ?? message;
      const told = words === undefined ? {} : { message: hidingSecrets(this.#secrets)(words) };
      this.#record.end({ ...ending, ...why, ...told, ...finishedAt(container) });
    } catch (error) {
      this.#isOver = false;
      throw error;
    }
    this.#letGo();
  }
}

/** The same error in words that quote no secret of the workload's, for the log and for those who are told. */
function withoutSecrets(error: unknown, secrets: Secrets | undefined): unknown {
  if (secrets === undefined || !(error instanceof Error) || error instanceof JournalRefused) return error;
  const hide = hidingSecrets(secrets);
  if (!(error instanceof GpunodeError)) {
    return Object.assign(new Error(hide(error.message)), { stack: hide(error.stack ?? "") });
  }
  const details = Object.entries(error.details ?? {}).map(([name, value]) => [
    name,
    typeof value === "string" ? hide(value) : value,
  ]);
  // Without its cause, which is the engine's answer as it came.
  return new GpunodeError(error.code, hide(error.message), { details: Object.fromEntries(details) });
}

/** When a container that is down went down, as the engine tells. */
function finishedAt(container: ContainerState | undefined): { finishedAt?: number } {
  const at = container?.finishedAt;
  return at === undefined || (container !== undefined && isUp(container)) ? {} : { finishedAt: Date.parse(at) };
}

/**
 * True where the record alone tells that its container is down. Whatever ran was seen to be down when its end was recorded; only
 * a start whose answer was lost may have left one that runs.
 */
function isKnownDown({ state, imageId, startedAt }: WorkloadRecord): boolean {
  return isTerminal(state) && (imageId === undefined || startedAt !== undefined);
}
