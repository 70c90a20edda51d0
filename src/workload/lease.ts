import type { WorkloadRecord } from "./record.ts";

/**
 * True where the coordinator has been silent for longer than the workload accepts. Counted from the last frame that
 * was read, not from when the loss was noticed. Both times by the steady clock, in milliseconds.
 */
export function silenceEnds(record: WorkloadRecord, silentSince: number, now: number): boolean {
  const { action, afterSeconds } = record.spec.onDisconnect;
  return action === "stop" && now - silentSince >= afterSeconds * 1000;
}
