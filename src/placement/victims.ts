import type { Gpu } from "../protocol/gpu.ts";
import type { GpuRequest } from "../protocol/workload.ts";
import { choose } from "./choose.ts";
import { binomial, combinations, SETS_MAX } from "./combinations.ts";
import { compareNumbers, misfit, type Unit, unitsOf } from "./unit.ts";

/** Somebody who holds GPUs or MIG instances. */
export interface Holder {
  id: string;
  /** UUIDs of what it holds. */
  gpus: readonly string[];
  priority: number;
  preemptible: boolean;
  /** Since when; milliseconds since the epoch. */
  acceptedAt: number;
}

/**
 * Whose GPUs a request of `priority` takes where not enough are free: only those of preemptible holders of lower priority. The fewest
 * holders; of as many, those of the lowest priority (the highest among them counts first); of the same, the youngest. undefined
 * where none are needed, and where none help: with the victims gone `choose` gives the request its GPUs.
 *
 * `suffices` says whether the request could run in every other respect with these gone; what does not is left out. At most
 * `SETS_MAX` sets of victims are looked at; beyond that as few as can be left of all are taken, the costliest left out first.
 */
export function chooseVictims<H extends Holder>(
  request: GpuRequest,
  from: {
    gpus: readonly Gpu[];
    holders: readonly H[];
    priority: number;
    suffices: (victims: readonly H[]) => boolean;
  },
): H[] | undefined {
  const { gpus, holders, priority, suffices } = from;
  const fitting = unitsOf(gpus, request).filter((unit) => misfit(unit, request) === undefined);
  const held = fitting.map((unit) => ({ unit, by: holders.filter((holder) => holds(holder, unit)) }));
  const reachable = held.filter(({ by }) => by.every((holder) => holder.preemptible && holder.priority < priority));
  const isServedWithout = (victims: readonly H[]): boolean => {
    const units = reachable.filter(({ by }) => by.every((holder) => victims.includes(holder))).map(({ unit }) => unit);
    // Without links asked for, any of them serve if they are as many; then there is nothing to choose.
    if (units.length < request.count) return false;
    return request.nvlink !== true || choose(units, request) !== undefined;
  };
  const candidates = [...new Set(reachable.flatMap(({ by }) => by))].sort(cheapestFirst);
  if (isServedWithout([]) || !isServedWithout(candidates)) return undefined;

  // What each could free at most, most first: sets that cannot be enough are not looked at one by one.
  const gains = candidates.map((holder) => reachable.filter(({ by }) => by.includes(holder)).length);
  const missing = request.count - reachable.filter(({ by }) => by.length === 0).length;
  const mostFirst = [...gains].sort((a, b) => b - a);
  let setsLeft = SETS_MAX;
  for (let count = 1; count <= candidates.length; count++) {
    if (mostFirst.slice(0, count).reduce((sum, gain) => sum + gain, 0) < missing) continue;
    setsLeft -= binomial(candidates.length, count);
    if (setsLeft < 0) break;
    let best: { victims: H[]; cost: number[] } | undefined;
    let serves = false;
    for (const set of combinations(candidates.length, count)) {
      const victims = set.flatMap((position) => candidates[position] ?? []);
      const cost = costOf(victims);
      if (best !== undefined && compareNumbers(cost, best.cost) >= 0) continue;
      if (!isServedWithout(victims)) continue;
      serves = true;
      if (suffices(victims)) best = { victims, cost };
    }
    // More victims than the GPUs need are never stopped for the sake of anything else.
    if (serves) return best?.victims;
  }
  const victims = leaveOut(candidates, gains, isServedWithout);
  return suffices(victims) ? victims : undefined;
}

/** A unit is held where itself is, or the GPU around it, or an instance within it. */
function holds({ gpus }: Holder, { uuid, gpu, profile }: Unit): boolean {
  const within = profile === undefined ? (gpu.mig?.instances ?? []) : [];
  return gpus.includes(uuid) || gpus.includes(gpu.uuid) || within.some((instance) => gpus.includes(instance.uuid));
}

function cheapestFirst(a: Holder, b: Holder): number {
  return a.priority - b.priority || b.acceptedAt - a.acceptedAt || (a.id < b.id ? -1 : 1);
}

/** What it costs to take from these, number by number, lower is better: how many, their priorities, their ages. */
export function costOf(victims: readonly Holder[]): number[] {
  const costliestFirst = [...victims].sort((a, b) => cheapestFirst(b, a));
  return [
    victims.length,
    ...costliestFirst.map(({ priority }) => priority),
    ...costliestFirst.map(({ acceptedAt }) => -acceptedAt),
  ];
}

/** Of all candidates what must remain: those who free the least are left out first, and of those the costliest. */
function leaveOut<H extends Holder>(
  candidates: readonly H[],
  gains: readonly number[],
  isServedWithout: (victims: readonly H[]) => boolean,
): H[] {
  const order = candidates
    .map((holder, position) => ({ holder, position, gain: gains[position] ?? 0 }))
    .sort((a, b) => a.gain - b.gain || b.position - a.position);
  let victims = [...candidates];
  for (const { holder } of order) {
    const others = victims.filter((other) => other !== holder);
    if (isServedWithout(others)) victims = others;
  }
  return victims;
}
