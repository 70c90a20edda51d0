import { chooseVictims, type Holder } from "../placement/victims.ts";
import { GpunodeError } from "../protocol/errors.ts";
import type { Workload } from "../protocol/workload.ts";
import { admit, type NodeFacts, requireAllButGpus } from "./admit.ts";
import { allocate } from "./allocate.ts";
import type { Limits } from "./limits.ts";
import type { PreemptWhy } from "./preempt.ts";
import type { WorkloadRecord } from "./record.ts";
import { isTerminal } from "./state.ts";

/**
 * A workload of higher priority takes GPUs from preemptible ones of lower priority. Pure: what is decided here is written down in one
 * commit by who asked, the victims' notice and orders beside the record of the one that takes over.
 */
export interface Admission {
  gpus: string[];
  limits: Limits;
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
      // What somebody else keeps from being lent is no one's to take.
      gpus: node.gpus.filter(({ uuid }) => !node.kept.has(uuid)),
      holders: holdersOf(node, live),
      priority: workload.priority,
      suffices: (gone) => doesNotThrow(() => requireAllButGpus(workload, without(node, gone))),
    });
    if (victims === undefined) throw explained(refusal, workload, live);
    const ids = new Set(victims.map(({ id }) => id));
    return { ...admit(workload, without(node, victims)), victims: live.filter(({ id }) => ids.has(id)) };
  }
}

/** Why the victims end. */
export function takeOver(by: Pick<Workload, "id" | "priority">): PreemptWhy {
  return { cause: "priority", message: `workload ${by.id} of priority ${by.priority} takes its GPU` };
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
    holders: new Map([...[...node.holders].filter(([uuid]) => !given.has(uuid)), ...node.kept]),
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
