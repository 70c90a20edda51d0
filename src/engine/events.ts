import { setTimeout as sleep } from "node:timers/promises";
import type { EngineEvent } from "../workload/needs.ts";
import { ContainerListAnswer, EventAnswer } from "./answers.ts";
import { type EngineClient, jsonLines, parseAnswer, piecesOf } from "./client.ts";
import { LABEL_NODE } from "./container.ts";
import { unavailable } from "./errors.ts";

/**
 * News of our containers, from one stream for all of them.
 *
 * The engine's own "wait" request is not used. It would hold one connection for each container, its answer never settles
 * when dockerd dies after the headers, and a container that ended while dockerd was down sends it nothing. Instead there
 * is one event stream, filtered by our label, which is open while somebody watches; an event, the loss of the stream and a look
 * at the list of running containers every few seconds all mean the same: "look again". What is true is always read by
 * inspect, so an event that was missed, sent twice or never sent changes nothing but the time it takes to be noticed.
 *
 * The look at the list also is the sign of life of the connection: an engine that hangs without closing it is found out.
 */
export interface ContainerEvents extends AsyncDisposable {
  /**
   * Watches a container until disposed of. Resolves once the stream is open, so that whatever happens after an inspect that
   * follows is not missed. Throws `engine_unavailable`, or the signal's reason.
   */
  watch(containerId: string, signal: AbortSignal): Promise<ContainerWatch>;
}

interface ContainerWatch extends Disposable {
  /** Resolves when the container should be looked at again; with "lost" when the stream is gone and this watch with it. */
  next(): Promise<"look" | "lost">;
}

interface Watcher {
  containerId: string;
  /** News since the last `next`. */
  news: "look" | "lost" | undefined;
  wake: () => void;
}

interface Stream {
  closing: AbortController;
  opened: Promise<void>;
  watchers: Set<Watcher>;
  /** Both loops that live on it. */
  ended: Promise<void>;
}

/** So much later than it happened the end of a container is noticed at the most, where its event was lost. */
const RELIST_MS = 10_000;

export function containerEvents(
  client: EngineClient,
  nodeId: string,
  options: { relistMs?: number } = {},
): ContainerEvents {
  const relistMs = options.relistMs ?? RELIST_MS;
  const label = `${LABEL_NODE}=${nodeId}`;
  const streams = new Set<Stream>();
  let current: Stream | undefined;
  let disposed = false;

  function openStream(): Stream {
    const closing = new AbortController();
    const { signal } = closing;
    const connected = client.open(
      (abortSignal) =>
        client.docker.getEvents({ filters: { type: ["container"], label: [label] }, abortSignal } as object),
      { doing: "follow the container engine's events", signal },
    );
    const watchers = new Set<Watcher>();
    const stream: Stream = { closing, watchers, opened: connected.then(() => undefined), ended: live() };
    stream.opened.catch(() => undefined);
    streams.add(stream);
    return stream;

    async function live(): Promise<void> {
      try {
        const source = await connected;
        const loops = [read(source), relist()];
        await Promise.race(loops).finally(() => closing.abort());
        await Promise.allSettled(loops);
      } catch {
        // Whoever watches is told "lost", looks at the engine, and gets its words from there.
      } finally {
        if (current === stream) current = undefined;
        for (const watcher of watchers) tell(watcher, "lost");
        streams.delete(stream);
      }
    }

    async function read(source: Awaited<typeof connected>): Promise<void> {
      for await (const value of jsonLines(piecesOf(source, signal))) {
        const event = readEvent(value);
        for (const watcher of watchers) if (watcher.containerId === event?.containerId) tell(watcher, "look");
      }
    }

    async function relist(): Promise<void> {
      for (;;) {
        await sleep(relistMs, undefined, { signal });
        const running = await listRunning(client, label, signal);
        for (const watcher of watchers) if (!running.has(watcher.containerId)) tell(watcher, "look");
      }
    }
  }

  return {
    async watch(containerId, signal) {
      signal.throwIfAborted();
      if (disposed) throw unavailable("the connection to the container engine was closed by this node");
      current ??= openStream();
      const stream = current;
      const watcher: Watcher = { containerId, news: undefined, wake: () => undefined };
      stream.watchers.add(watcher);
      const aborted = Promise.withResolvers<void>();
      const wake = () => {
        watcher.wake();
        aborted.resolve();
      };
      signal.addEventListener("abort", wake, { once: true });
      const dispose = () => {
        signal.removeEventListener("abort", wake);
        stream.watchers.delete(watcher);
        if (stream.watchers.size > 0) return;
        if (current === stream) current = undefined;
        stream.closing.abort();
      };
      try {
        await Promise.race([stream.opened, aborted.promise]);
        signal.throwIfAborted();
      } catch (error) {
        dispose();
        throw error;
      }
      return {
        async next() {
          if (watcher.news === undefined && !signal.aborted) {
            await new Promise<void>((resolve) => {
              watcher.wake = resolve;
            });
          }
          signal.throwIfAborted();
          const news = watcher.news ?? "look";
          // A lost stream stays lost.
          if (news === "look") watcher.news = undefined;
          return news;
        },
        [Symbol.dispose]: dispose,
      };
    },
    async [Symbol.asyncDispose]() {
      disposed = true;
      for (const { closing } of streams) closing.abort();
      await Promise.all([...streams].map(({ ended }) => ended));
    },
  };
}

function tell(watcher: Watcher, news: "look" | "lost"): void {
  if (watcher.news !== "lost") watcher.news = news;
  watcher.wake();
}

async function listRunning(client: EngineClient, label: string, signal: AbortSignal): Promise<Set<string>> {
  const answer = await client.ask(
    (abortSignal) => client.docker.listContainers({ filters: { label: [label] }, abortSignal }),
    { doing: "list the running containers", signal },
  );
  return new Set(parseAnswer(ContainerListAnswer, answer, "containers").map(({ Id }) => Id));
}

/** An engine event of a container; undefined where the object is something else. */
export function readEvent(value: unknown): EngineEvent | undefined {
  const event = EventAnswer.safeParse(value);
  if (!event.success || event.data.Type !== "container" || !event.data.Actor?.ID) return undefined;
  const { Action, Actor } = event.data;
  const known = Action === "start" || Action === "die" || Action === "oom" || Action === "destroy";
  return { containerId: Actor.ID, action: known ? Action : "other" };
}
