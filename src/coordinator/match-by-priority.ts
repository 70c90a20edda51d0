import { compareNumbers } from "../placement/unit.ts";
import { chooseVictims, costOf, type Holder } from "../placement/victims.ts";
import { type Candidate, fitOn, type Match, obstacle, type Request } from "./match.ts";

/**
 * Where a workload goes that fits nowhere as things are: to a node that takes GPUs from preemptible workloads of lower priority for it.
 * Pure. The same rules choose the victims here and on the node, whose word is the last; of several nodes, that whose victims cost
 * the least, and then as `match`. undefined where that helps nowhere, or where what it needs is being given back already: then it
 * waits for that.
 */
export function matchByPriority(
  request: Request & { priority: number },
  candidates: readonly Candidate[],
): Match | undefined {
  const { priority } = request;
  let best: { rank: number[]; match: Match } | undefined;
  for (const candidate of candidates) {
    const { gpus, policy } = candidate.advertisement;
    if (policy.priorityPreemption !== true) continue;
    const victims = chooseVictims(request.gpus, {
      gpus,
      holders: [...candidate.staying, ...strangers(candidate)],
      priority,
      suffices: (gone) => obstacle(without(candidate, gone), request.resources) === undefined,
    });
    if (victims === undefined) continue;
    const fit = fitOn(without(candidate, victims), request);
    if ("reason" in fit) continue;
    const rank = [...costOf(victims), ...fit.rank];
    if (best !== undefined && compareNumbers(rank, best.rank) >= 0) continue;
    const takesFrom = victims.map(({ id }) => id);
    best = { rank, match: { fits: true, node: candidate.id, gpus: fit.gpus, takesFrom } };
  }
  return best?.match;
}

/** The node as it will be with these gone, and those that are ending already. */
function without(candidate: Candidate, victims: readonly Holder[]): Candidate {
  const ids = new Set(victims.map(({ id }) => id));
  const staying = candidate.staying.filter(({ id }) => !ids.has(id));
  return {
    ...candidate,
    staying,
    taken: new Set([...staying, ...strangers(candidate)].flatMap(({ gpus }) => gpus)),
    workloads: staying.length,
    memoryPromisedMiB: staying.reduce((sum, { memoryMiB }) => sum + memoryMiB, 0),
  };
}

/** What is held by somebody who is none of ours, and is not ours to take. */
function strangers({ strange }: Candidate): Holder[] {
  return [...strange].map((uuid) => ({
    id: `holder of ${uuid}`,
    gpus: [uuid],
    priority: 0,
    preemptible: false,
    acceptedAt: 0,
  }));
}
