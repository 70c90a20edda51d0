import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import type { Snapshot } from "../local/snapshot.ts";
import { type AskOptions, daemonOf, withJson } from "./daemon-client.ts";
import { command, print, printJson } from "./outcome.ts";
import { statusInWords } from "./status-view.ts";
import { optionsOf } from "./table.ts";

const WATCH_INTERVAL_MS = 1000;

export function registerStatus(program: Command): void {
  withJson(program.command("status"))
    .description("show this node: GPUs, workloads, connection, problems")
    .option("--watch", "redraw every second until Ctrl-C")
    .action(command(status));
}

async function status(options: AskOptions & { watch?: true }): Promise<void> {
  const daemon = await daemonOf(options);
  // The first answer decides the exit code; later a daemon may come and go.
  const first = await daemon.status();
  if (options.watch !== true) {
    if (options.json === true) printJson(first);
    else print(statusInWords(first, optionsOf(process.stdout)));
    return;
  }
  const stop = new AbortController();
  process.once("SIGINT", () => stop.abort()).once("SIGTERM", () => stop.abort());
  const show = options.json === true ? printLine : process.stdout.isTTY ? screen() : printBelow;
  try {
    for (let next: Snapshot | Error = first; !stop.signal.aborted; ) {
      show(next);
      await sleep(WATCH_INTERVAL_MS, undefined, { signal: stop.signal }).catch(() => undefined);
      next = await daemon
        .status()
        .catch((error: unknown) => (error instanceof Error ? error : new Error(String(error))));
    }
  } finally {
    if (show !== printLine && show !== printBelow) await leaveScreen();
  }
}

type Show = (snapshot: Snapshot | Error) => void;

/** With --json: one snapshot a line. */
const printLine: Show = (snapshot) => {
  if (!(snapshot instanceof Error)) print(`${JSON.stringify(snapshot)}\n`);
};

const printBelow: Show = (snapshot) => print(`${inWords(snapshot)}\n`);

function inWords(snapshot: Snapshot | Error): string {
  return snapshot instanceof Error ? `${snapshot.message}\n` : statusInWords(snapshot, optionsOf(process.stdout));
}

/** The terminal's second screen, so that what was there comes back; each frame overwrites the last one line by line. */
function screen(): Show {
  // Without wrapping: a line too long for the window must not push the others down.
  print("\x1b[?1049h\x1b[?25l\x1b[?7l");
  return (snapshot) => {
    const rows = (process.stdout.rows ?? 24) - 1;
    const lines = inWords(snapshot).split("\n").slice(0, rows);
    print(`\x1b[H${lines.map((line) => `${line}\x1b[K\n`).join("")}\x1b[J`);
  };
}

async function leaveScreen(): Promise<void> {
  if (!process.stdout.write("\x1b[?7h\x1b[?25h\x1b[?1049l")) await once(process.stdout, "drain");
}
