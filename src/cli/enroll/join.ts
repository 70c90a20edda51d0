import { Interrupted, openTerminal, type Terminal } from "../terminal.ts";
import { confirm } from "./answers.ts";
import { bringUp } from "./bring-up.ts";
import { type Writing, writingOf } from "./files.ts";
import { placeOf } from "./place.ts";
import { type JoinOptions, type Run, say } from "./run.ts";
import { serviceHere, startCommands } from "./service.ts";
import { settle } from "./settle.ts";

/**
 * Enrols this machine: asks what no flag says, looks at the coordinator, writes the configuration, starts the service, and waits until it is
 * connected. Nothing is written before all of it is known to be right.
 */
export async function join(options: JoinOptions): Promise<void> {
  const place = await placeOf(options);
  const stop = new AbortController();
  const end = () => stop.abort(new Interrupted("interrupted"));
  const endings = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const ending of endings) process.once(ending, end);
  using terminal = options.yes === true ? undefined : terminalHere(stop.signal);
  const signal = terminal?.signal ?? stop.signal;
  const run: Run = { options, place, terminal, signal };
  let written = false;
  try {
    const answers = await settle(run);
    const writing = await writingOf(place, answers);
    if (!(await agreed(run, writing))) return;
    await writing.write();
    written = true;
    await bringUp(run, answers);
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new Interrupted(
      written
        ? 'interrupted; what was written stays: "gpunode status" shows how it goes'
        : "interrupted; nothing was changed",
    );
  } finally {
    for (const ending of endings) process.off(ending, end);
  }
}

function terminalHere(until: AbortSignal): Terminal | undefined {
  const { stdin, stdout, stderr } = process;
  const output = stdout.isTTY ? stdout : stderr.isTTY ? stderr : undefined;
  return stdin.isTTY && output !== undefined ? openTerminal(stdin, output, until) : undefined;
}

/** Says what would be done; false where it is not to be done. */
async function agreed({ options, terminal, place }: Run, { says }: Writing): Promise<boolean> {
  const would = options.dryRun === true ? "would: " : "";
  const starts = place.isService ? await startSays() : [];
  const all = [...says, ...starts];
  say(all.length === 0 ? "There is nothing to write.\n" : all.map((each) => `${would}${each}\n`).join(""));
  if (options.dryRun === true) return false;
  if (terminal === undefined || (await confirm(terminal, "Do that?", true))) return true;
  throw new Error("nothing was changed");
}

async function startSays(): Promise<string[]> {
  const service = await serviceHere();
  if (service.kind !== "installed") return [];
  return startCommands(service)
    .filter(([verb]) => verb !== "reset-failed")
    .map((args) => ["systemctl", ...args].join(" "));
}
