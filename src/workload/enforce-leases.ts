import { silenceEnds } from "./lease.ts";
import type { Log } from "./needs.ts";
import type { Runner } from "./runner.ts";
import { isTerminal } from "./state.ts";

export interface LeaseDoors {
  log: Log;
  /** The clock for deadlines. */
  steady(): number;
  /** When the last frame of a coordinator was read, by the steady clock; undefined while connected. */
  silentSince(): number | undefined;
}

/** Orders the end of every workload that does not accept so long a silence of the coordinator. An end the disk refuses is logged. */
export function enforceLeases(runners: readonly Runner[], doors: LeaseDoors): void {
  const silentSince = doors.silentSince();
  if (silentSince === undefined) return;
  for (const runner of runners) {
    const { record } = runner;
    if (isTerminal(record.state) || record.stop !== undefined) continue;
    if (!silenceEnds(record, silentSince, doors.steady())) continue;
    const message = `no word from the coordinator for ${record.spec.onDisconnect.afterSeconds} s`;
    try {
      runner.order({
        outcome: "stopped",
        reason: "disconnected",
        message,
        graceSeconds: record.spec.stop.graceSeconds,
      });
    } catch (error) {
      doors.log.error({ err: error, workload: record.id }, "could not record the end of a lease; trying again");
    }
  }
}
