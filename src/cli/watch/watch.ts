import { setTimeout as sleep } from "node:timers/promises";
import type { ReadStream, WriteStream } from "node:tty";
import type { LocalClient } from "../../local/client.ts";
import type { Snapshot } from "../../local/snapshot.ts";
import { createEarningsReader, type Earnings } from "./earnings.ts";
import { frame } from "./frame.ts";
import type { Away } from "./head-rows.ts";
import { createHistory, type EarlierHistory } from "./history.ts";
import { FIRST_VIEW, type Key, type ViewState, wishOf } from "./keys.ts";
import { createPullPaces } from "./pull-pace.ts";
import { openTerminal } from "./terminal.ts";

export interface WatchOptions {
  daemon: Pick<LocalClient, "status" | "usage">;
  /** The first answer. */
  first: Snapshot;
  stdout: WriteStream;
  /** Where keys come from; undefined: there are none. */
  stdin: ReadStream | undefined;
  color: boolean;
  /** False: ASCII only. */
  unicode: boolean;
  /** What the GPUs did before; the watch begins without it, and does without it where this rejects. */
  earlierHistory?: (signal: AbortSignal) => Promise<EarlierHistory>;
}

const SECOND_MS = 1000;
const EARNINGS_INTERVAL_MS = 60_000;

/**
 * Shows the node on the whole terminal, anew each second, until its viewer has enough of it (q, Ctrl-C) or the process is told to end. A daemon
 * that goes away is waited for. Resolves with the terminal as it was before.
 */
export async function watch(options: WatchOptions): Promise<void> {
  const { daemon, first, stdout, stdin, color, unicode } = options;
  const stop = new AbortController();
  const { signal } = stop;
  const [history, paces] = [createHistory(), createPullPaces()];
  let snapshot = first;
  let away: Away | undefined;
  let earnings: Earnings | undefined;
  let view: ViewState = FIRST_VIEW;
  let last = 0;
  const see = (next: Snapshot) => {
    snapshot = next;
    away = undefined;
    history.see(next);
    paces.see(next);
  };
  see(first);

  using terminal = openTerminal({
    ...{ stdout, stdin, color },
    onKey: (key) => press(key),
    onRedraw: () => draw(),
    onEnd: () => stop.abort(),
  });
  const draw = () => {
    const picture = { snapshot, now: Date.now(), history, paces, ...(away && { away }), ...(earnings && { earnings }) };
    const shown = frame(picture, view, { ...terminal.size(), unicode, hasKeys: stdin !== undefined });
    last = shown.last;
    terminal.show(shown.lines);
  };
  const press = (key: Key) => {
    const wish = wishOf(key, view, last);
    if (wish === "quit") return stop.abort();
    if (wish === "suspend") return terminal.suspend();
    if (wish === "redraw") terminal.forget();
    else if (wish !== undefined) view = wish.view;
    draw();
  };
  draw();

  const later = Promise.all([
    (options.earlierHistory?.(signal) ?? Promise.resolve(new Map()))
      .then((earlier: EarlierHistory) => {
        for (const [uuid, points] of earlier) for (const point of points) history.add(uuid, point);
      })
      // An older daemon does not tell; the graphs begin now.
      .catch(() => undefined),
    everyMinute(createEarningsReader(daemon, { signal }), signal, (next) => {
      earnings = next;
    }),
  ]);
  let asked: Promise<void> | undefined;
  while (!signal.aborted) {
    // At the turn of the second, so that countdowns go evenly.
    await sleep(SECOND_MS - (Date.now() % SECOND_MS), undefined, { signal }).catch(() => undefined);
    if (signal.aborted || terminal.isSuspended) continue;
    // Time goes on also while a daemon thinks about its answer.
    if (asked !== undefined) draw();
    else {
      asked = daemon
        .status({ signal })
        .then(see, (error: unknown) => {
          away = { since: away?.since ?? Date.now(), ...whyAway(error) };
        })
        .then(() => {
          asked = undefined;
          if (!signal.aborted) draw();
        });
    }
  }
  await Promise.all([asked, later]);
}

function whyAway(error: unknown): Pick<Away, "message" | "isGone"> {
  const { name, message } = error instanceof Error ? error : { name: "", message: String(error) };
  return { message, isGone: name === "DaemonNotRunning" };
}

/** Reads now and once a minute, until the signal; what cannot be read now is read the next time. */
async function everyMinute<T>(read: () => Promise<T>, signal: AbortSignal, tell: (value: T) => void): Promise<void> {
  while (!signal.aborted) {
    await read().then(tell, () => undefined);
    await sleep(EARNINGS_INTERVAL_MS, undefined, { signal }).catch(() => undefined);
  }
}
