import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import type { Telemetry } from "../protocol/agent-frames.ts";
import type { MadeToken } from "./join-tokens.ts";
import type { Submission } from "./schedule.ts";
import { isEnd } from "./states.ts";
import type { NodeView, WorkloadView } from "./views.ts";

/** A workload with the events that speak of it. */
export type WorkloadWithEvents = WorkloadView & { events: TaggedEvent[] };

/** An event as the API tells it. */
export type TaggedEvent = { position: number; node: string; seq: number; at: string; kind: string } & Record<
  string,
  unknown
>;

/** A piece of a workload's output, or why the stream ended. */
const LogLine = z.union([
  z.object({ end: z.string() }),
  z.object({ stream: z.enum(["stdout", "stderr"]), at: z.string().exactOptional(), data: z.string() }),
]);
export type LogLine = z.infer<typeof LogLine>;

const ErrorBody = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

/** The coordinator answered, but not with what was asked for. */
export class RefusedError extends Error {
  override readonly name = "RefusedError";
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** A coordinator's HTTP API. Every call throws an Error with one sentence where it can't be reached, `RefusedError` where it says no. */
export class CoordinatorClient {
  readonly #base: string;
  readonly #token: string | undefined;

  /** `url`: `http://host:port` without a path. Throws where it is no URL. */
  constructor(url: string, options: { token?: string }) {
    if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
      throw new Error(`"${url}" is no URL of a coordinator; expected something like http://127.0.0.1:7800`);
    }
    this.#base = `${url.replace(/\/+$/, "")}/api/v1`;
    this.#token = options.token;
  }

  async nodes(): Promise<NodeView[]> {
    return ((await this.#json("GET", "/nodes")) as { nodes: NodeView[] }).nodes;
  }

  async telemetry(node: string): Promise<Omit<Telemetry, "type">> {
    return (await this.#json("GET", `/nodes/${encodeURIComponent(node)}/telemetry`)) as Omit<Telemetry, "type">;
  }

  async drain(node: string, options: { graceSeconds?: number }): Promise<NodeView> {
    return (await this.#json("POST", `/nodes/${encodeURIComponent(node)}/drain`, options)) as NodeView;
  }

  async resume(node: string): Promise<NodeView> {
    return (await this.#json("POST", `/nodes/${encodeURIComponent(node)}/resume`)) as NodeView;
  }

  /** Keeps a node out from now on. */
  async bar(node: string, options: { reason?: string }): Promise<NodeView> {
    return (await this.#json("POST", `/nodes/${encodeURIComponent(node)}/bar`, options)) as NodeView;
  }

  async unbar(node: string): Promise<NodeView> {
    return (await this.#json("POST", `/nodes/${encodeURIComponent(node)}/unbar`)) as NodeView;
  }

  /** A join token for so many new nodes; 1 and an hour where nothing else is said. */
  async makeToken(options: { uses?: number; expiresInSeconds?: number } = {}): Promise<MadeToken> {
    return (await this.#json("POST", "/tokens", options)) as MadeToken;
  }

  async workloads(): Promise<WorkloadView[]> {
    return ((await this.#json("GET", "/workloads")) as { workloads: WorkloadView[] }).workloads;
  }

  async workload(id: string): Promise<WorkloadWithEvents> {
    return (await this.#json("GET", `/workloads/${encodeURIComponent(id)}`)) as WorkloadWithEvents;
  }

  /** What the submission contains is judged by the coordinator. */
  async submit(submission: Submission | Record<string, unknown>): Promise<WorkloadView> {
    return (await this.#json("POST", "/workloads", submission)) as WorkloadView;
  }

  async release(id: string, options: { graceSeconds?: number } = {}): Promise<WorkloadView> {
    return (await this.#json("DELETE", `/workloads/${encodeURIComponent(id)}`, options)) as WorkloadView;
  }

  async preempt(id: string, options: { graceSeconds?: number; reason?: string } = {}): Promise<WorkloadView> {
    return (await this.#json("POST", `/workloads/${encodeURIComponent(id)}/preempt`, options)) as WorkloadView;
  }

  /**
   * Looks again and again until the workload has ended; `onChange` is called with each view that differs from the one
   * before. Returns the last. The coordinator being away for a moment is waited out; it must know the workload.
   */
  async waitForEnd(
    id: string,
    options: { intervalMs: number; signal: AbortSignal; onChange: (view: WorkloadWithEvents) => void },
  ): Promise<WorkloadWithEvents> {
    let last = "";
    while (true) {
      const view = await this.workload(id).catch((error: unknown) => {
        if (error instanceof RefusedError) throw error;
        return undefined;
      });
      if (view !== undefined) {
        const text = JSON.stringify(view);
        if (text !== last) options.onChange(view);
        last = text;
        // `endedAt` is the end for good; `lost` without it may still turn out to have run on.
        if (isEnd(view.state) && view.endedAt !== undefined) return view;
      }
      await sleep(options.intervalMs, undefined, { signal: options.signal });
    }
  }

  /** Output of a workload, at the speed it is read; the last line says why it ended. */
  async *logs(
    id: string,
    options: { follow: boolean; tail?: number; since?: string; signal?: AbortSignal },
  ): AsyncGenerator<LogLine, void, undefined> {
    const query = new URLSearchParams({ format: "ndjson", follow: options.follow ? "1" : "0" });
    if (options.tail !== undefined) query.set("tail", String(options.tail));
    if (options.since !== undefined) query.set("since", options.since);
    const response = await this.#fetch("GET", `/workloads/${encodeURIComponent(id)}/logs?${query}`, {
      ...(options.signal !== undefined && { signal: options.signal }),
    });
    for await (const line of linesOf(response)) yield LogLine.parse(JSON.parse(line));
  }

  /** Every event the coordinator holds, in the order it took them, read no faster than asked for. */
  async *events(): AsyncGenerator<TaggedEvent, void, undefined> {
    const response = await this.#fetch("GET", "/events", {});
    for await (const line of linesOf(response)) yield JSON.parse(line) as TaggedEvent;
  }

  async #json(method: string, path: string, body?: object): Promise<unknown> {
    return (await this.#fetch(method, path, body === undefined ? {} : { body: JSON.stringify(body) })).json();
  }

  async #fetch(method: string, path: string, init: { body?: string; signal?: AbortSignal }): Promise<Response> {
    const headers = {
      ...(init.body !== undefined && { "content-type": "application/json" }),
      ...(this.#token !== undefined && { authorization: `Bearer ${this.#token}` }),
    };
    let response: Response;
    try {
      response = await fetch(this.#base + path, { ...init, method, headers });
    } catch (error) {
      if (init.signal?.aborted === true) throw error;
      throw new Error(`the coordinator at ${this.#base} can't be reached: ${reasonOf(error)}`, { cause: error });
    }
    if (response.ok) return response;
    const told = ErrorBody.safeParse(await response.json().catch(() => undefined));
    if (told.success) throw new RefusedError(told.data.error.code, told.data.error.message);
    throw new Error(`${this.#base} answers ${response.status} and not as a coordinator does`);
  }
}

/** Whole lines of an answer, as they come. */
async function* linesOf({ body }: Response): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body ?? []) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/** `fetch` hides the reason in the cause. */
function reasonOf(error: unknown): string {
  const { cause } = error as { cause?: { message?: string; code?: string } };
  return cause?.code ?? cause?.message ?? String(error);
}
