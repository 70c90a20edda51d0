import type { Gpu } from "../protocol/gpu.ts";
import { orAborted } from "./abort.ts";
import type { Holders } from "./allocate.ts";
import { recordKey, type WorkloadRecord } from "./record.ts";
import type { Runner } from "./runner.ts";
import { isTerminal } from "./state.ts";

/**
 * Who holds which GPU or MIG instance now, all but the workload `except`. A workload that is being ended no longer holds its own; one
 * that has ended and whose container may live still does.
 */
export function holdersOf(runners: readonly Runner[], except?: string): Holders {
  const holders = new Map<string, string>();
  for (const { record, isOver } of runners) {
    const { id, gpus, stop } = record;
    if (isOver || stop !== undefined || id === except) continue;
    for (const uuid of gpus) holders.set(uuid, id);
  }
  return holders;
}

/** What else may still hold something on this node. */
export function othersHolding(record: WorkloadRecord, runners: readonly Runner[]): WorkloadRecord[] {
  return runners
    .filter(({ record: other, isOver }) => !isOver && recordKey(other) !== recordKey(record))
    .map(({ record: other }) => other);
}

/**
 * Waits for those who hold the same GPUs or are an earlier generation of the same workload. Rejects with the signal's reason when it is
 * aborted first.
 */
export async function gpusFree(record: WorkloadRecord, runners: readonly Runner[], signal: AbortSignal): Promise<void> {
  const before = runners.filter(
    ({ record: other, isOver }) =>
      !isOver &&
      recordKey(other) !== recordKey(record) &&
      ((other.id === record.id && other.generation < record.generation) ||
        ((other.stop !== undefined || isTerminal(other.state)) &&
          other.gpus.some((uuid) => record.gpus.includes(uuid)))),
  );
  await orAborted(Promise.all(before.map((runner) => runner.ended)), signal);
}

/** True where `uuids` name the board or one of its MIG instances. */
export function holdsAny(gpu: Gpu, uuids: readonly string[]): boolean {
  return uuids.includes(gpu.uuid) || (gpu.mig?.instances.some(({ uuid }) => uuids.includes(uuid)) ?? false);
}
