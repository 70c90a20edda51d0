import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import type { LocalClient } from "../local/client.ts";
import type { Snapshot } from "../local/snapshot.ts";
import { type AskOptions, daemonOf, withJson } from "./daemon-client.ts";
import { command, print, printJson } from "./outcome.ts";
import { statusInWords } from "./status-view.ts";
import { optionsOf } from "./table.ts";

const WATCH_INTERVAL_MS = 1000;

export function registerStatus(program: Command): void {
  withJson(program.command("status"))
    .description("show this node: GPUs, workloads, connection, problems")
    .option("--watch", "stay, with graphs and countdowns; into a pipe, all of it each second")
    .action(command(status));
}

async function status(options: AskOptions & { watch?: true }): Promise<void> {
  const daemon = await daemonOf(options);
  // The first answer decides the exit code; later a daemon may come and go.
  const first = await daemon.status();
  const { stdout, stdin } = process;
  if (options.watch !== true) {
    if (options.json === true) printJson(first);
    else print(statusInWords(first, optionsOf(stdout)));
  } else if (options.json === true) await repeat(daemon, first, asJsonLine);
  // A terminal without a cursor that can be moved is written on like paper.
  else if (!stdout.isTTY || process.env.TERM === "dumb") await repeat(daemon, first, inWords);
  else {
    const [{ watch }, { readEarlier }] = await Promise.all([import("./watch/watch.ts"), import("./watch/earlier.ts")]);
    const keys = stdin.isTTY ? stdin : undefined;
    const color = optionsOf(stdout).color === true;
    const earlierHistory = (signal: AbortSignal) => readEarlier(daemon, first, signal);
    await watch({ daemon, first, stdout, stdin: keys, color, unicode: knowsUnicode(process.env), earlierHistory });
  }
}

/** Whether the locale says UTF-8; without one it is ASCII. */
function knowsUnicode({ LC_ALL, LC_CTYPE, LANG }: NodeJS.ProcessEnv): boolean {
  return /utf-?8/i.test(LC_ALL || LC_CTYPE || LANG || "");
}

/** Writes what there is each second, until SIGINT or SIGTERM; a reader that is slower than that slows it down. */
async function repeat(
  daemon: Pick<LocalClient, "status">,
  first: Snapshot,
  text: (snapshot: Snapshot | Error) => string,
): Promise<void> {
  const stop = new AbortController();
  process.once("SIGINT", () => stop.abort()).once("SIGTERM", () => stop.abort());
  const { signal } = stop;
  for (let next: Snapshot | Error = first; !signal.aborted; ) {
    if (!process.stdout.write(text(next))) await once(process.stdout, "drain", { signal }).catch(() => undefined);
    await sleep(WATCH_INTERVAL_MS, undefined, { signal }).catch(() => undefined);
    next = await daemon
      .status({ signal })
      .catch((error: unknown) => (error instanceof Error ? error : new Error(String(error))));
  }
}

/** One snapshot a line; nothing while there is none. */
function asJsonLine(snapshot: Snapshot | Error): string {
  return snapshot instanceof Error ? "" : `${JSON.stringify(snapshot)}\n`;
}

function inWords(snapshot: Snapshot | Error): string {
  return snapshot instanceof Error
    ? `${snapshot.message}\n\n`
    : `${statusInWords(snapshot, optionsOf(process.stdout))}\n`;
}
