import { GpunodeError } from "../protocol/errors.ts";
import { linkedController, orAborted } from "./abort.ts";
import type { KeptLogs } from "./kept-logs.ts";
import type { Engine, LogChunk } from "./needs.ts";
import { recordKey, type WorkloadRecord } from "./record.ts";
import { isTerminal } from "./state.ts";

export interface OutputOptions {
  follow: boolean;
  tail?: number;
  /** RFC 3339. */
  since?: string;
  signal: AbortSignal;
}

/** A container waits so long at most for those who still read its output before it is removed. */
const READERS_WAIT_MS = 30_000;

/**
 * What workloads write, for the owner and the coordinator: from the container while there is one, from the kept file
 * afterwards. Readers are counted, so that a container is not removed under somebody who reads its last lines.
 */
export class WorkloadOutput {
  readonly #engine: Engine;
  readonly #kept: KeptLogs;
  readonly #find: (id: string) => WorkloadRecord | undefined;
  readonly #readers = new Map<string, number>();
  #change = Promise.withResolvers<void>();
  /** A reader has finished; apart from `#change`, or readers would wake each other up for ever. */
  #reader = Promise.withResolvers<void>();

  constructor(engine: Engine, kept: KeptLogs, find: (id: string) => WorkloadRecord | undefined) {
    this.#engine = engine;
    this.#kept = kept;
    this.#find = find;
  }

  /** Some workload changed its state. */
  changed(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }

  /**
   * The output of a workload's newest generation, in order. With `follow` it goes on until the workload ends, waiting for
   * a container that is still to come. Throws `unknown_workload`.
   */
  open(id: string, options: OutputOptions): AsyncIterable<LogChunk> {
    if (this.#find(id) === undefined) throw new GpunodeError("unknown_workload", `this node has no workload "${id}"`);
    return this.#read(id, options);
  }

  async *#read(id: string, options: OutputOptions): AsyncGenerator<LogChunk> {
    let { since, tail } = options;
    while (!options.signal.aborted) {
      const record = this.#find(id);
      if (record === undefined) return;
      // Taken before the record is looked at again: a change meanwhile is then not missed.
      const change = this.#change.promise;
      const hasContainer = record.containerId !== undefined && record.state !== "starting";
      if (hasContainer && (await this.#hasContainer(record))) {
        const { follow, signal } = options;
        const part = { ...(since !== undefined && { since }), ...(tail !== undefined && { tail }) };
        let told = false;
        try {
          for await (const chunk of this.#fromContainer(record, { follow, signal, ...part })) {
            told = true;
            yield chunk;
          }
        } catch (error) {
          const ended = this.#find(id);
          if (told || since !== options.since || ended === undefined || !isTerminal(ended.state)) throw error;
          // Its removal had begun when it was looked at: what it wrote has been kept before that.
          return yield* await this.#kept.read(ended, tail);
        }
        since = await this.#readUntil(record);
        tail = undefined;
      } else {
        // The container may have gone between the two looks: the record knows how it stands by now.
        const ended = this.#find(id);
        if (ended !== undefined && isTerminal(ended.state)) {
          if (since === options.since) yield* await this.#kept.read(ended, tail);
          return;
        }
      }
      const now = this.#find(id);
      if (!options.follow || now === undefined || isTerminal(now.state)) return;
      await orAborted(change, options.signal).catch(() => undefined);
    }
  }

  /** Where to read on if the container is started again: all it wrote before it stopped has been read. */
  async #readUntil(record: WorkloadRecord): Promise<string> {
    const container = await this.#engine.inspect(record.containerId ?? "");
    const since = container?.status === "running" ? container.startedAt : container?.finishedAt;
    return since ?? new Date().toISOString();
  }

  async #hasContainer(record: WorkloadRecord): Promise<boolean> {
    return record.containerId !== undefined && (await this.#engine.inspect(record.containerId)) !== undefined;
  }

  async *#fromContainer(record: WorkloadRecord, options: OutputOptions): AsyncGenerator<LogChunk> {
    const key = recordKey(record);
    this.#readers.set(key, (this.#readers.get(key) ?? 0) + 1);
    try {
      yield* this.#engine.logs(record.containerId ?? "", options);
    } finally {
      const left = (this.#readers.get(key) ?? 1) - 1;
      if (left === 0) this.#readers.delete(key);
      else this.#readers.set(key, left);
      this.#reader.resolve();
      this.#reader = Promise.withResolvers();
    }
  }

  /** Resolves when nobody reads this record's container any more, has had half a minute to finish, or the agent leaves. */
  async readersGone(record: WorkloadRecord, leaving: AbortSignal): Promise<void> {
    const key = recordKey(record);
    const { signal: patience, unlink } = linkedController(leaving, READERS_WAIT_MS);
    while (this.#readers.has(key) && !patience.aborted) {
      await orAborted(this.#reader.promise, patience).catch(() => undefined);
    }
    unlink();
  }
}
