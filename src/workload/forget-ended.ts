import type { KeptLogs } from "./kept-logs.ts";
import type { Journal, Log } from "./needs.ts";
import type { WorkloadRecord } from "./record.ts";
import type { Runner } from "./runner.ts";
import { isTerminal } from "./state.ts";

/** Ended workloads stay listed until the coordinator no longer wants them, and this many of the newest anyway. */
const KEEP_ENDED = 100;

/** A runner, and the end of its loop. */
export interface Running {
  runner: Runner;
  done: Promise<void>;
}

export interface ForgetDoors {
  journal: Journal;
  log: Log;
  keptLogs: KeptLogs;
  /** False where nobody asks for it any more. */
  isRemembered(record: WorkloadRecord): boolean;
  /** Aborted when the agent leaves: then the next one forgets. */
  leaving: AbortSignal;
  /** Takes it off the list; false where it is off already. */
  drop(key: string): boolean;
}

/** Forgets ended workloads nobody asks for any more, each as soon as its container is gone. `running` is by record key. */
export function forgetEnded(running: ReadonlyMap<string, Running>, doors: ForgetDoors): void {
  const ended = [...running.entries()]
    .filter(([, { runner }]) => isTerminal(runner.record.state) && !doors.isRemembered(runner.record))
    .sort(([, a], [, b]) => (b.runner.record.finishedAt ?? 0) - (a.runner.record.finishedAt ?? 0));
  for (const [key, entry] of ended.slice(KEEP_ENDED)) {
    void forget(key, entry, doors);
  }
}

async function forget(key: string, { runner, done }: Running, doors: ForgetDoors): Promise<void> {
  // Only when its container is gone: a record is what a restarted agent finds the container by.
  await done;
  if (doors.leaving.aborted || !doors.drop(key)) return;
  try {
    doors.journal.commit({ put: [], remove: [key], events: [] });
    await doors.keptLogs.forget(runner.record);
  } catch (error) {
    doors.log.debug({ err: error, key }, "could not forget an ended workload; the next agent will");
  }
}
