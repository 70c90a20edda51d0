import type { Advertise } from "../protocol/agent-frames.ts";
import type { Candidate, Placed } from "./match.ts";
import type { WorkloadRecord } from "./workload-table.ts";

/**
 * A node as matching sees it: what it advertised, and what is given away there. `here` are the live workloads placed on it. A GPU counts as
 * taken where it was given to one of them, and where the node says that somebody holds it, unless `isOver` knows that one's end
 * already.
 */
export function candidateOf(
  node: Pick<Candidate, "id" | "name"> & { advertisement: Advertise; refusal: string | undefined },
  here: readonly WorkloadRecord[],
  isOver: (workload: string) => boolean,
): Candidate {
  const { advertisement, refusal, ...rest } = node;
  const units = advertisement.gpus.flatMap((gpu) => [gpu, ...(gpu.mig?.instances ?? [])]);
  const held = new Map<string, string[]>();
  for (const { uuid, allocatedTo } of units) {
    if (allocatedTo !== undefined && !isOver(allocatedTo)) {
      held.set(allocatedTo, [...(held.get(allocatedTo) ?? []), uuid]);
    }
  }
  const placed = here.map((record) => ({ record, gpus: [...record.gpus, ...(held.get(record.id) ?? [])] }));
  for (const { id } of here) held.delete(id);
  const strange = new Set([...held.values()].flat());
  return {
    ...rest,
    advertisement,
    taken: new Set([...placed.flatMap(({ gpus }) => gpus), ...strange]),
    workloads: here.length,
    memoryPromisedMiB: here.reduce((sum, { spec }) => sum + (spec.resources.memoryMiB ?? 0), 0),
    staying: placed.filter(({ record }) => !isEnding(record)).map(({ record, gpus }) => placedOf(record, gpus)),
    strange,
    ...(refusal !== undefined && { refusal }),
  };
}

/** What it holds is being given back already. */
function isEnding({ state, wanted }: WorkloadRecord): boolean {
  return state === "stopping" || wanted === "stopped";
}

function placedOf({ id, spec, createdAt }: WorkloadRecord, gpus: readonly string[]): Placed {
  const { priority, preemptible, resources } = spec;
  // Its age here: when its node accepted it, that node knows, which has the last word on whom it stops.
  return { id, gpus, priority, preemptible, acceptedAt: Date.parse(createdAt), memoryMiB: resources.memoryMiB ?? 0 };
}
