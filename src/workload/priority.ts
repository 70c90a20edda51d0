import { chooseVictims, type Holder } from "../placement/victims.ts";
import { GpunodeError } from "../protocol/errors.ts";
import type { EventBody } from "../protocol/event.ts";
import type { Workload } from "../protocol/workload.ts";
import { admit, type NodeFacts, requireAllButGpus } from "./admit.ts";
import { allocate } from "./allocate.ts";
import type { StopOrder, WorkloadRecord } from "./record.ts";
import { isTerminal } from "./state.ts";

/**
 * A workload of higher priority takes GPUs from preemptible ones of lower priority. Pure: what is decided here is written down in one
 * commit by who asked, the victims' notice and orders beside the record of the one that takes over.
 */
export interface Admission {
  gpus: string[];
  /** Who has to end for it; none where its GPUs are free. */
  victims: WorkloadRecord[];
}

/**
 * As `admit`, but where the GPUs are held and priority may decide, those who hold them may have to end. Count, ports and
 * memory are judged with them gone, and nobody ends for a workload that could not run even so: then `admit`'s own refusal stands.
 * `records` are all that the node knows of.
 */
export function admitByPriority(workload: Workload, node: NodeFacts, records: readonly WorkloadRecord[]): Admission {
  try {
    return { ...admit(workload, node), victims: [] };
  } catch (refusal) {
    if (!node.policy.priorityPreemption || !(refusal instanceof GpunodeError) || !isBusy(workload, node)) throw refusal;
    // Who has an order to end holds nothing already, and who has ended cannot be ended.
    const live = records.filter(
      ({ id, state, stop }) => id !== workload.id && stop === undefined && !isTerminal(state),
    );
    const victims = chooseVictims(workload.gpus, {
      gpus: node.gpus,
      holders: holdersOf(node, live),
      priority: workload.priority,
      suffices: (gone) => doesNotThrow(() => requireAllButGpus(workload, without(node, gone))),
    });
    if (victims === undefined) throw explained(refusal, workload, live);
    const ids = new Set(victims.map(({ id }) => id));
    return { ...admit(workload, without(node, victims)), victims: live.filter(({ id }) => ids.has(id)) };
  }
}

/** How a victim ends. */
export function takeOverOrder(victim: WorkloadRecord, by: Pick<Workload, "id" | "priority">): StopOrder {
  return {
    outcome: "preempted",
    reason: "priority",
    message: messageOf(by),
    graceSeconds: victim.spec.stop.graceSeconds,
    preemption: { cause: "priority" },
  };
}

/** The one notice for all victims; none where there are none. `now` is the wall clock's, in milliseconds since the epoch. */
export function takeOverNotice(
  victims: readonly WorkloadRecord[],
  by: Pick<Workload, "id" | "priority">,
  now: number,
): EventBody[] {
  if (victims.length === 0) return [];
  const seconds = victims.map(({ spec: { stop } }) => stop.graceSeconds + (stop.checkpoint?.timeoutSeconds ?? 0));
  return [
    {
      kind: "preemption",
      phase: "notice",
      cause: "priority",
      workloads: victims.map(({ id }) => id),
      gpus: victims.flatMap(({ gpus }) => gpus),
      deadline: new Date(now + Math.max(...seconds) * 1000).toISOString(),
      message: messageOf(by),
    },
  ];
}

function messageOf({ id, priority }: Pick<Workload, "id" | "priority">): string {
  return `workload ${id} of priority ${priority} takes its GPU`;
}

/** True where GPUs here could serve it and are held. */
function isBusy(workload: Workload, node: NodeFacts): boolean {
  try {
    allocate(workload.gpus, node.gpus, node.holders);
    return false;
  } catch (error) {
    return error instanceof GpunodeError && error.code === "gpu_busy";
  }
}

/** All who hold something: those who may be asked, and the others (they have ended and their container may live), who may not. */
function holdersOf(node: NodeFacts, live: readonly WorkloadRecord[]): Holder[] {
  const asked = new Set(live.flatMap(({ gpus }) => gpus));
  const others = [...node.holders].filter(([uuid]) => !asked.has(uuid));
  return [
    ...live.map(({ id, gpus, spec, acceptedAt }) => {
      const { priority, preemptible } = spec;
      return { id, gpus, priority, preemptible, acceptedAt };
    }),
    ...others.map(([uuid, id]) => ({ id, gpus: [uuid], priority: 0, preemptible: false, acceptedAt: 0 })),
  ];
}

function without(node: NodeFacts, victims: readonly Holder[]): NodeFacts {
  const ids = new Set(victims.map(({ id }) => id));
  const given = new Set(victims.flatMap(({ gpus }) => gpus));
  return {
    ...node,
    holders: new Map([...node.holders].filter(([uuid]) => !given.has(uuid))),
    live: node.live.filter(({ id }) => !ids.has(id)),
  };
}

function doesNotThrow(act: () => void): boolean {
  try {
    act();
    return true;
  } catch (error) {
    if (error instanceof GpunodeError) return false;
    throw error;
  }
}

/** A refusal for held GPUs also says why those of lower priority did not help, where there are any. */
function explained(refusal: GpunodeError, workload: Workload, live: readonly WorkloadRecord[]): GpunodeError {
  const lower = live.filter(({ gpus, spec }) => gpus.length > 0 && spec.priority < workload.priority);
  if (refusal.code !== "gpu_busy" || lower.length === 0) return refusal;
  const preemptible = lower.filter(({ spec }) => spec.preemptible);
  const named = (records: readonly WorkloadRecord[]) => records.map(({ id }) => id).join(", ");
  const why =
    preemptible.length === 0
      ? `of lower priority than ${workload.priority}, but not preemptible: ${named(lower)}`
      : `stopping those of lower priority than ${workload.priority} (${named(preemptible)}) would not free enough`;
  const { details } = refusal;
  return new GpunodeError("gpu_busy", `${refusal.message}; ${why}`, details === undefined ? {} : { details });
}
