import type { GpuLink } from "../protocol/gpu.ts";
import type { GpuRequest } from "../protocol/workload.ts";
import { binomial, combinations, SETS_MAX } from "./combinations.ts";
import { compareNumbers, type Unit } from "./unit.ts";

/** How near two GPUs are over PCIe, nearest highest: one switch, several, one host bridge, one NUMA node, across sockets. */
const NEARNESS: Readonly<Record<NonNullable<GpuLink["path"]>, number>> = { pix: 5, pxb: 4, phb: 3, node: 2, sys: 1 };

/**
 * Picks `request.count` of the free units, which all fit; undefined where there are not enough, or where `request.nvlink` wants
 * every pair linked and none are. Pure, and the same whatever their order.
 *
 * One GPU: the smallest that fits, and among equals the one whose taking leaves the most NVLinked groups whole. Several: the most pairs
 * linked over NVLink, then of one product, the smallest, the nearest over PCIe, and again the least broken up.
 */
export function choose(free: readonly Unit[], request: Pick<GpuRequest, "count" | "nvlink">): Unit[] | undefined {
  const { count } = request;
  const ordered = [...free].sort(
    (a, b) => (a.vramMiB ?? 0) - (b.vramMiB ?? 0) || a.gpu.index - b.gpu.index || (a.uuid < b.uuid ? -1 : 1),
  );
  if (count === 0) return [];
  if (ordered.length < count) return undefined;
  const map = new Map(ordered.map((unit, position) => [unit.uuid, position]));
  const nvlinks = ordered.map(({ gpu }) => new Set(positions(gpu.links, map, ({ kind }) => kind === "nvlink")));
  if (count > 1 && nvlinks.every((links) => links.size === 0) && ordered.every(({ gpu }) => !hasPaths(gpu.links))) {
    // Nothing is known to be nearer than anything else, so the order alone decides; a common product still counts.
    if (request.nvlink === true) return undefined;
    if (new Set(ordered.map(({ gpu }) => gpu.name)).size === 1) return ordered.slice(0, count);
  }
  const rankOf = ranking(ordered, nvlinks);
  let best: { set: readonly number[]; rank: number[] } | undefined;
  for (const set of candidates(ordered.length, count, nvlinks)) {
    const rank = rankOf(set);
    const isLinked = -(rank[0] ?? 0) === (count * (count - 1)) / 2;
    if (request.nvlink === true && !isLinked) continue;
    if (best === undefined || compareNumbers(rank, best.rank) < 0) best = { set: [...set], rank };
  }
  return best?.set.flatMap((position) => ordered[position] ?? []);
}

/** Lower is better, number by number. */
function ranking(units: readonly Unit[], nvlinks: readonly ReadonlySet<number>[]) {
  const near = units.map(({ gpu }) => new Map(gpu.links.map((link) => [link.gpu, link.path && NEARNESS[link.path]])));
  return (set: readonly number[]): number[] => {
    let linked = 0;
    let nearness = 0;
    let broken = 0;
    for (const a of set) {
      const links = nvlinks[a];
      for (const b of links ?? []) if (!set.includes(b)) broken += 1;
      for (const b of set) {
        if (b <= a) continue;
        if (links?.has(b)) linked += 1;
        nearness += near[a]?.get(units[b]?.gpu.uuid ?? "") ?? 0;
      }
    }
    const members = set.flatMap((position) => units[position] ?? []);
    const products = new Set(members.map(({ gpu }) => gpu.name)).size;
    const vramMiB = members.reduce((sum, unit) => sum + (unit.vramMiB ?? 0), 0);
    return [-linked, products, vramMiB, -nearness, broken, ...set];
  };
}

/** Sets of `count` of the positions below `size`, each in ascending order: all of them, or where those are too many one grown from each. */
function* candidates(size: number, count: number, nvlinks: readonly ReadonlySet<number>[]): Generator<number[]> {
  if (binomial(size, count) <= SETS_MAX) {
    yield* combinations(size, count);
    return;
  }
  for (let seed = 0; seed < size; seed++) {
    const set = [seed];
    while (set.length < count) {
      let next = -1;
      let most = -1;
      for (let position = 0; position < size; position++) {
        if (set.includes(position)) continue;
        const linked = set.filter((member) => nvlinks[member]?.has(position)).length;
        if (linked > most) [next, most] = [position, linked];
      }
      set.push(next);
    }
    yield set.sort((a, b) => a - b);
  }
}

function positions(
  links: readonly GpuLink[],
  map: ReadonlyMap<string, number>,
  wanted: (link: GpuLink) => boolean,
): number[] {
  return links.flatMap((link) => (wanted(link) ? (map.get(link.gpu) ?? []) : []));
}

function hasPaths(links: readonly GpuLink[]): boolean {
  return links.some(({ path }) => path !== undefined);
}
