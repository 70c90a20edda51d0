import { connectLocal, DaemonNotRunning } from "../../local/client.ts";
import { socketPathIn } from "../../local/socket-path.ts";
import { statusInWords } from "../status-view.ts";
import { optionsOf, printable } from "../table.ts";
import { type Answers, askToken } from "./answers.ts";
import { type Dialled, untilConnected } from "./connected.ts";
import { writingOf } from "./files.ts";
import type { Place } from "./place.ts";
import { type Run, say } from "./run.ts";
import { runSystemctl, serviceHere, startCommands } from "./service.ts";

/** Starts the service, and waits until the node is connected; where it is refused, asks for another token. */
export async function bringUp(run: Run, answers: Answers): Promise<void> {
  const { place, signal } = run;
  const service = place.isService ? await serviceHere() : ({ kind: "none" } as const);
  if (service.kind !== "installed") return await sayHowToStart(place, service.kind);
  for (let again = answers; ; ) {
    for (const args of startCommands(await installedNow())) await runSystemctl(args, signal);
    say("Waiting until it is connected …\n");
    const daemon = connectLocal(socketPathIn(place.current.config.runDir));
    const dialled = await untilConnected(daemon, again.url, { withinMs: run.options.waitSeconds * 1000, signal });
    if (dialled.kind === "connected") {
      say(`It is connected.\n\n${statusInWords(dialled.snapshot, optionsOf(process.stdout))}\n${WHAT_NOW}`);
      return;
    }
    const token = await otherToken(run, dialled);
    if (token === undefined) throw new Error(failureInWords(dialled, place));
    again = { ...again, token };
    await (await writingOf(place, again)).write();
  }
}

async function installedNow(): Promise<{ isActive: boolean }> {
  const service = await serviceHere();
  return { isActive: service.kind === "installed" && service.isActive };
}

/** Where the coordinator says no to the one it was shown, somebody may have another. */
async function otherToken({ terminal }: Run, dialled: Dialled): Promise<Answers["token"]> {
  if (dialled.kind !== "refused" || terminal === undefined) return undefined;
  say(`  ${printable(dialled.why)}.\n`);
  return await askToken(terminal, "Another join token (not shown; Enter to leave it): ");
}

function failureInWords(dialled: Exclude<Dialled, { kind: "connected" }>, { configFile }: Place): string {
  switch (dialled.kind) {
    case "refused":
      return `the configuration is written, but ${printable(dialled.why)}; ask its operator for a token ("gpunode coordinator token create" makes one there), then run "gpunode enroll" again`;
    case "elsewhere":
      return `the service dials ${printable(dialled.url)}, whatever ${configFile} says: an environment variable of its unit goes before it; "systemctl cat gpunode" shows it`;
    case "late":
      return `the configuration is written, but it is not connected yet: ${printable(dialled.why)}. The service goes on trying; "gpunode status" and "gpunode logs" show how it goes`;
  }
}

async function sayHowToStart({ isService, named, current }: Place, kind: "none" | "absent"): Promise<void> {
  if (isService && kind === "absent") {
    say('The service is not installed yet: "sudo gpunode service install" installs and starts it.\n');
    return;
  }
  const daemon = connectLocal(socketPathIn(current.config.runDir));
  const pid = await daemon.status().then(
    ({ node }) => node.pid,
    (error: unknown) => (error instanceof DaemonNotRunning ? undefined : 0),
  );
  const its = named === undefined ? "" : ` --config ${named}`;
  const command = `gpunode run${its}`;
  if (pid === undefined)
    say(
      `Nothing starts gpunode by itself here. Start it with "${command}"; "gpunode status${its}" then shows how it goes.\n`,
    );
  else
    say(
      `gpunode runs here already${pid === 0 ? "" : ` (pid ${pid})`} and does not know of this yet: end it, and start it anew with "${command}".\n`,
    );
}

const WHAT_NOW = `What now
  gpunode reclaim --for 2h   have your GPUs back, for a while; a game or a render of yours takes its GPU back by itself
  gpunode status --watch     what runs here and who has which GPU
  gpunode doctor             what of this machine could be better
  gpunode logs -f            what the daemon says
`;
