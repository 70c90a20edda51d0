import { setTimeout as sleep } from "node:timers/promises";
import { type ErrorCode, GpunodeError } from "../protocol/errors.ts";
import type { EventBody } from "../protocol/event.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { PortBinding, WorkloadState } from "../protocol/workload.ts";
import { linkedController, orAborted } from "./abort.ts";
import { type Policy, requireEffectiveUser, requireStanding } from "./admit.ts";
import { containerSpec, ownLabels } from "./container-spec.ts";
import { heedNotice } from "./heed-notice.ts";
import { checkImageDemands, type DriverFacts } from "./image-demands.ts";
import { initComplaint } from "./init-complaint.ts";
import type { Limits } from "./limits.ts";
import type { ContainerState, Engine, Journal, Log, SignatureCheck, WorkloadNetworks } from "./needs.ts";
import { LABEL_GENERATION, LABEL_WORKLOAD } from "./needs.ts";
import { alreadyCounted, endingOf, isUp, nextStep, type Step } from "./plan.ts";
import { watchHealth } from "./probe.ts";
import { containerName, eventOf, hidingSecrets, type Secrets, type StopOrder, type WorkloadRecord } from "./record.ts";
import { isTerminal } from "./state.ts";
import { harder } from "./stop-order.ts";
import { takeDown } from "./take-down.ts";
import { noticeOf, tellTenant } from "./tenant-notice.ts";
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
export interface RunnerDoors {
  engine: Engine;
  journal: Journal;
  log: Log;
  /** The wall clock, for what is told; milliseconds since the epoch. */
  now(): number;
  /** The clock for deadlines, which no step of the wall clock moves; milliseconds since the epoch. */
  steady(): number;
  policy: Policy;
  /** Absent where the provider wants no signatures. */
  requireSignature?: SignatureCheck;
  nodeId: string;
  /** Absent where workloads are on the engine's default bridge. */
  networks?: WorkloadNetworks;
  host: { architecture: string };
  driver(): DriverFacts;
  gpus(uuids: readonly string[]): Gpu[];
  /** What the record is held to. */
  limits(record: WorkloadRecord): Limits;
  /** What the engine lacks that no workload may be without. */
  engineLacks?(): string | undefined;
  /** Resolves when no other workload holds this record's GPUs any more. */
  gpusFree(record: WorkloadRecord, signal: AbortSignal): Promise<void>;
  /** Free host ports for the record, none of them taken by another workload or a listener of the host. */
  pickPorts(record: WorkloadRecord): Promise<PortBinding[]>;
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
const RESTART_BACKOFF_MOST_MS = 60_000;
/** 128 + SIGKILL. */
const KILLED_EXIT_CODE = 137;
/** So long the engine may take to learn that the kernel killed a container for its memory. */
const OOM_WORD_MS = 500;
/** `setTimeout` takes no more than a signed 32-bit number of milliseconds. */
const TIMER_MOST_MS = 2 ** 31 - 1;

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
  #pull: { currentBytes: number; totalBytes: number } | undefined;
  #engineAwaySince: number | undefined;
  readonly #ended = Promise.withResolvers<void>();
  #isOver = false;

  constructor(record: WorkloadRecord, secrets: Secrets | undefined, doors: RunnerDoors) {
    this.#record = new WrittenRecord(record, doors);
    this.#secrets = secrets;
    this.#doors = doors;
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
        if (step.do === "done") return await this.#doors.networks?.close(containerName(this.record));
        await this.#perform(step, signal, detach);
        this.#engineAwaySince = undefined;
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

  /** Turns an error into an ending where it is one; false where the step is worth another try. */
  #settle(error: unknown): boolean {
    const { log } = this.#doors;
    const fields = { workload: this.record.id, generation: this.record.generation };
    if (error instanceof JournalRefused) {
      log.error(
        { ...fields, err: error.cause },
        "the state database refuses writes; trying again, running work goes on",
      );
      return false;
    }
    const known = error instanceof GpunodeError ? error : undefined;
    if (known?.code === "engine_unavailable" && !this.#outOfPatience()) return false;
    // Once it ends anyway, an error on the way (a stop, a remove) is no new ending: the step is tried again.
    if (isTerminal(this.record.state) || this.record.stop !== undefined || this.record.state === "running") {
      log.warn({ ...fields, err: error }, "a step failed; trying again");
      return false;
    }
    if (known === undefined) log.error({ ...fields, err: error }, "unexpected error in a workload: this is a bug");
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
    if (state === "accepted" || state === "pulling") return undefined;
    if (isTerminal(state) && this.record.imageId === undefined) return undefined;
    // A create may have happened just before a crash, its id never written down: the name finds it again.
    const found = await this.#doors.engine.inspect(containerName(this.record));
    if (found?.labels[LABEL_WORKLOAD] !== id || found.labels[LABEL_GENERATION] !== String(generation)) return undefined;
    return found;
  }

  async #perform(step: Exclude<Step, { do: "done" }>, signal: AbortSignal, detach: AbortSignal): Promise<void> {
    const { engine } = this.#doors;
    switch (step.do) {
      case "pull":
        return await this.#pullImage(signal);
      case "create":
        return await this.#create(signal);
      case "start":
        return await this.#start(step.container, signal);
      case "markRunning":
        return this.#markRunning(step.container);
      case "wait":
        return await this.#wait(step.container, signal);
      case "restart":
        return await this.#restart(step.container, signal);
      case "stop":
        return await takeDown(this.#record, step.container, this.#doors, signal);
      case "finish":
        return this.#finish(step.container, await initComplaint(step.container, engine, signal));
      case "remove":
        await this.#keepLogs(step.container, detach);
        return await engine.remove(step.container.id);
    }
  }

  /** As well as it can be done: output that cannot be kept (a full disk) must not keep the container too. */
  async #keepLogs(container: ContainerState, detach: AbortSignal): Promise<void> {
    try {
      await this.#doors.keepLogs(this.record, container, detach);
    } catch (error) {
      detach.throwIfAborted();
      this.#doors.log.warn({ workload: this.record.id, err: error }, "its last output could not be kept");
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

  async #pullImage(signal: AbortSignal): Promise<void> {
    this.#requireStillAllowed();
    await this.#awaitSecrets(signal);
    if (this.record.state === "accepted") this.#record.move("pulling", {});
    const began = performance.now();
    const image = await this.#fetchImage(signal);
    this.#record.move("starting", { ...image, timings: { ...this.record.timings, pullMs: elapsed(began) } });
  }

  /** The owner may have changed the rules and started the agent anew since the workload was taken in. */
  #requireStillAllowed(): void {
    const { policy, engineLacks } = this.#doors;
    const lacks = engineLacks?.();
    requireStanding(this.record.spec, { policy, ...(lacks !== undefined && { engineLacks: lacks }) });
  }

  /** Pulls the image and checks what it demands of this node. */
  async #fetchImage(signal: AbortSignal): Promise<{ imageId: string; imageDigest: string }> {
    const { engine, policy } = this.#doors;
    const { image: reference, user, gpus, env } = this.record.spec;
    const auth = this.#secrets?.registryAuth;
    try {
      const login = auth === undefined ? {} : { auth };
      const image = await engine.pull(reference, {
        ...login,
        noProgressMs: policy.pullNoProgressMs,
        onProgress: (currentBytes, totalBytes) => {
          this.#pull = { currentBytes, totalBytes };
          this.#doors.progress(this.record, currentBytes, totalBytes);
        },
        signal,
      });
      const needed = gpus.count === 0 ? [] : this.#doors.gpus(this.record.gpus);
      // The container's environment is the image's with the workload's on top, and the toolkit reads the whole.
      const own = Object.entries(env).map(([name, value]) => `${name}=${value}`);
      checkImageDemands({ ...image, env: [...image.env, ...own] }, this.#doors.host, this.#doors.driver(), needed);
      requireEffectiveUser(user, image.user, policy);
      await this.#doors.requireSignature?.(byDigest(reference, image.digest), { ...login, signal });
      return { imageId: image.id, imageDigest: image.digest };
    } finally {
      this.#pull = undefined;
    }
  }

  /** After a restart of the agent the secrets come back with the next `sync`; until then nothing is made without them. */
  async #awaitSecrets(signal: AbortSignal): Promise<void> {
    if (!this.record.hadSecrets || this.#secrets !== undefined) return;
    await orAborted(this.#secretsCame.promise, signal);
  }

  async #create(signal: AbortSignal): Promise<void> {
    await this.#awaitSecrets(signal);
    await this.#doors.gpusFree(this.record, signal);
    this.#requireStillAllowed();
    if (this.record.spec.ports.length > 0) this.#record.save({ ports: await this.#doors.pickPorts(this.record) });
    signal.throwIfAborted();
    const began = performance.now();
    const containerId = await this.#createWithImage(await this.#openNetwork(signal), signal);
    this.#record.save({ containerId, timings: { ...this.record.timings, createMs: elapsed(began) } });
  }

  async #openNetwork(signal: AbortSignal): Promise<{ network?: string }> {
    const { networks, nodeId } = this.#doors;
    if (networks === undefined) return {};
    const container = { name: containerName(this.record), labels: ownLabels(this.record, nodeId) };
    return { network: await networks.open(container, signal) };
  }

  /** An image that was pruned since its pull is pulled once more. */
  async #createWithImage(on: { network?: string }, signal: AbortSignal): Promise<string> {
    const { engine, policy, nodeId } = this.#doors;
    const limits = this.#doors.limits(this.record);
    const create = () => engine.create(containerSpec(this.record, this.#secrets, { policy, nodeId, limits, ...on }));
    try {
      return await create();
    } catch (error) {
      if (!(error instanceof GpunodeError) || error.code !== "pull_failed") throw error;
      signal.throwIfAborted();
      this.#record.save(await this.#fetchImage(signal));
      signal.throwIfAborted();
      return await create();
    }
  }

  async #start(container: ContainerState, signal: AbortSignal): Promise<void> {
    // A reboot between create and start takes the rules away and leaves the container.
    await this.#openNetwork(signal);
    const began = performance.now();
    await this.#doors.engine.start(container.id);
    const timings = { ...this.record.timings, startMs: elapsed(began) };
    const { now, steady } = this.#doors;
    this.#record.move("running", { containerId: container.id, startedAt: now(), startedSteady: steady(), timings });
  }

  #markRunning(container: ContainerState): void {
    const { now, steady } = this.#doors;
    const startedAt = container.startedAt === undefined ? now() : Date.parse(container.startedAt);
    const startedSteady = steady() - Math.max(0, now() - startedAt);
    this.#record.move("running", { containerId: container.id, startedAt, startedSteady });
  }

  /** Waits for the end, the run-time limit or an order, whichever is first, and watches health meanwhile. */
  async #wait(container: ContainerState, signal: AbortSignal): Promise<void> {
    const { engine, log } = this.#doors;
    const over = linkedController(signal);
    const both = over.signal;
    const limits = [this.#waitForEnd(container, both), this.#limitRuntime(both), this.#heedNotice(container, both)];
    const probe = this.record.spec.health;
    const watching =
      probe === undefined
        ? undefined
        : watchHealth(probe, {
            engine,
            containerId: container.id,
            ports: this.record.ports,
            hostIp: this.#doors.policy.hostIp,
            signal: both,
            report: (healthy) => {
              log.info(
                { workload: this.record.id, healthy },
                healthy ? "workload is healthy" : "workload is unhealthy",
              );
              this.#record.save({ healthy }, [eventOf({ ...this.record, healthy })]);
            },
          });
    try {
      await Promise.race(limits);
    } finally {
      over.controller.abort();
      over.unlink();
      await Promise.allSettled([...limits, watching]);
    }
  }

  async #heedNotice({ id: containerId }: ContainerState, signal: AbortSignal): Promise<void> {
    const { engine, log, steady } = this.#doors;
    const { noticeSignal } = this.record.spec.stop;
    await heedNotice(
      {
        record: () => this.record,
        changed: () => this.#noticeChanged.promise,
        tell: (notice, until) =>
          tellTenant(engine, { containerId, noticeSignal }, noticeOf(notice, this.#doors), { signal: until, log }),
        order: (stop) => this.order(stop),
        steady,
      },
      signal,
    );
  }

  /** A busy engine learns of a kill by the kernel a moment after the exit itself: a kill that nobody sent is looked at again. */
  async #waitForEnd({ id }: ContainerState, signal: AbortSignal): Promise<void> {
    const ended = await this.#doors.engine.wait(id, signal);
    const isUnexplained = ended?.exitCode === KILLED_EXIT_CODE && !ended.oomKilled;
    if (isUnexplained) await sleep(OOM_WORD_MS, undefined, { signal });
  }

  async #limitRuntime(signal: AbortSignal): Promise<void> {
    const { maxRuntimeSeconds: limit, runtimeIsCapped } = this.#doors.limits(this.record);
    if (limit === undefined) return await orAborted(new Promise<never>(() => undefined), signal);
    const { steady } = this.#doors;
    const runUntil = (this.record.startedSteady ?? steady()) + limit * 1000;
    for (let left = runUntil - steady(); left > 0; left = runUntil - steady()) {
      await sleep(Math.min(left, TIMER_MOST_MS), undefined, { signal });
    }
    const { policy } = this.#doors;
    const message =
      runtimeIsCapped === true
        ? `ran for ${limit} s, the longest that policy.max.run_seconds allows`
        : `ran for maxRuntimeSeconds ${limit}`;
    // A grace of a day would make nothing of the owner's cap.
    const graceMost = policy.max?.runSeconds === undefined ? Number.POSITIVE_INFINITY : policy.preemptWithinMs / 1000;
    const graceSeconds = Math.min(this.record.spec.stop.graceSeconds, graceMost);
    this.order({ outcome: "failed", reason: "max_runtime", message, graceSeconds });
  }

  async #restart(container: ContainerState, signal: AbortSignal): Promise<void> {
    if (!alreadyCounted(this.record, container)) {
      const restarts = this.record.restarts + 1;
      await sleep(Math.min(1000 * 2 ** (restarts - 1), RESTART_BACKOFF_MOST_MS), undefined, { signal });
      const message = `exited with code ${container.exitCode}; restart ${restarts} of ${this.record.spec.restart.maxRetries}`;
      const restartedAfter = container.finishedAt;
      const { healthy: _verdict, ...record } = this.record;
      const next = { ...record, restarts, ...(restartedAfter !== undefined && { restartedAfter }) };
      this.#record.replace(next, [eventOf({ ...next, reason: "restarted", message })]);
    }
    await this.#openNetwork(signal);
    signal.throwIfAborted();
    await this.#doors.engine.start(container.id);
    // Those who follow its output go on reading only now that it writes again.
    this.#record.tellChanged();
  }
}

/** The very image of a reference, whatever its tag says meanwhile. */
function byDigest(reference: string, digest: string): string {
  return `${reference.replace(/@.*$/, "").replace(/:[^:/]*$/, "")}@${digest}`;
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

function elapsed(since: number): number {
  return Math.round(performance.now() - since);
}
