import type { Command } from "commander";
import { clock } from "../local/hold-words.ts";
import type { Snapshot, WorkloadStatus } from "../local/snapshot.ts";
import { type AskOptions, daemonOf, withJson } from "./daemon-client.ts";
import { lengthOf } from "./length.ts";
import { namedGpus } from "./named-gpus.ts";
import { command, print, printJson, UsageError, wholeNumber } from "./outcome.ts";
import { followTakingBack } from "./taking-back.ts";

interface ReclaimOptions extends AskOptions {
  gpu?: string[];
  for?: string;
  graceSeconds?: string;
  wait: boolean;
}

export function registerReclaim(program: Command): void {
  withJson(program.command("reclaim"))
    .description("take GPUs back for yourself: all of the machine, or single GPUs, for a while or until resume")
    .option("--gpu <gpu...>", "only these, by index or UUID")
    .option("--for <length>", "lend them again by itself after 90m, 2h, 1d")
    .option("--grace-seconds <seconds>", "time each workload gets to end (default: what it asked for)")
    .option("--no-wait", "do not wait until they are free")
    .action(command(reclaim));
}

async function reclaim(options: ReclaimOptions): Promise<void> {
  const forMs = options.for === undefined ? undefined : lengthOf("--for", options.for);
  if (forMs === 0) throw new UsageError("--for 0: expected a length above zero");
  const daemon = await daemonOf(options);
  const { gpu: gpus, graceSeconds: grace } = options;
  const holds = await daemon.reclaim({
    ...(gpus !== undefined && { gpus }),
    ...(forMs !== undefined && { forMs }),
    ...(grace !== undefined && { graceSeconds: wholeNumber("--grace-seconds", grace) }),
  });
  if (options.json === true) return printJson({ holds });
  const until =
    forMs === undefined
      ? 'until "gpunode resume"'
      : `until ${clock(new Date(Date.now() + forMs).toISOString(), new Date().toISOString())}`;
  const what = gpus === undefined ? "this machine" : `GPU ${gpus.join(", ")}`;
  print(`Taking back ${what} ${until}.\n`);
  if (!options.wait) return;
  const stop = new AbortController();
  process.once("SIGINT", () => stop.abort());
  try {
    await followTakingBack(daemon, (workload, snapshot) => isOn(workload, snapshot, gpus), print, stop.signal);
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    print('Not waited for; "gpunode status" shows the rest.\n');
    return;
  }
  print(gpus === undefined ? "It is all yours.\n" : `Free: GPU ${gpus.join(", ")}.\n`);
}

function isOn({ gpus }: WorkloadStatus, snapshot: Snapshot, names: readonly string[] | undefined): boolean {
  const named = namedGpus(names, snapshot.gpus);
  if (named === undefined) return true;
  return named.some(
    ({ uuid, mig }) => gpus.includes(uuid) || (mig?.instances.some((part) => gpus.includes(part.uuid)) ?? false),
  );
}
