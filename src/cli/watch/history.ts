import type { Snapshot } from "../../local/snapshot.ts";

/** What a GPU did at one moment, or for a while. */
export interface HistoryPoint {
  /** Milliseconds since the epoch. */
  at: number;
  /** How long it was so, from then on; a moment where absent. */
  lastsMs?: number;
  utilizationPercent?: number;
  /** VRAM in use, of all there is. */
  vramPercent?: number;
}

/** What is known of GPUs, by UUID, from before the watch began; in any order. */
export type EarlierHistory = ReadonlyMap<string, Iterable<HistoryPoint>>;

export type Measure = "utilizationPercent" | "vramPercent";

/** What the GPUs did, as far back as a graph can show. */
export interface History {
  add(uuid: string, point: HistoryPoint): void;
  /** Takes up what the snapshot says of each GPU. */
  see(snapshot: Snapshot): void;
  /** Means over `stepMs` each, oldest first; the last is the step that `now` is in. undefined where nothing was seen. */
  steps(
    uuid: string,
    measure: Measure,
    options: { now: number; stepMs: number; count: number },
  ): (number | undefined)[];
}

/** Lengths of time that one column of a graph can stand for. Each is a multiple of a tier below. */
export const STEPS_MS = [1_000, 5_000, 30_000, 300_000, 1_200_000] as const;

/** Seconds for 20 minutes, half minutes for a day: 60 KiB for each GPU. */
const TIERS = [
  { stepMs: 1_000, size: 1_200 },
  { stepMs: 30_000, size: 2_880 },
] as const;

export function createHistory(): History {
  const gpus = new Map<string, Record<Measure, Track[]>>();
  const tracksOf = (uuid: string) => {
    const known = gpus.get(uuid) ?? { utilizationPercent: TIERS.map(track), vramPercent: TIERS.map(track) };
    gpus.set(uuid, known);
    return known;
  };
  const add = (uuid: string, { at, lastsMs = 1, utilizationPercent, vramPercent }: HistoryPoint) => {
    const tracks = tracksOf(uuid);
    for (const tier of tracks.utilizationPercent) tier.add({ at, lastsMs }, utilizationPercent);
    for (const tier of tracks.vramPercent) tier.add({ at, lastsMs }, vramPercent);
  };
  return {
    add,
    see({ at, gpus: seen }) {
      for (const { uuid, vramMiB, telemetry } of seen) {
        if (telemetry === undefined) continue;
        const { utilizationPercent, vramUsedMiB, vramTotalMiB = vramMiB } = telemetry;
        add(uuid, {
          at: Date.parse(at),
          ...(utilizationPercent !== undefined && { utilizationPercent }),
          ...(vramUsedMiB !== undefined && vramTotalMiB && { vramPercent: (100 * vramUsedMiB) / vramTotalMiB }),
        });
      }
    },
    steps(uuid, measure, { now, stepMs, count }) {
      const tracks = gpus.get(uuid)?.[measure];
      const tier = TIERS.findLastIndex((candidate) => stepMs % candidate.stepMs === 0);
      return tracks?.[tier]?.steps({ now, stepMs, count }) ?? Array<undefined>(count).fill(undefined);
    },
  };
}

type Track = ReturnType<typeof track>;

/** A ring of means. A slot says itself whose it is, so that gaps need no clearing. */
function track({ stepMs, size }: { stepMs: number; size: number }) {
  const [slots, sums, counts] = [new Float64Array(size).fill(-1), new Float64Array(size), new Uint32Array(size)];
  /** What is older than what the slot holds is forgotten already. */
  const put = (slot: number, value: number) => {
    const index = slot % size;
    if (slot < (slots[index] ?? 0)) return;
    if (slots[index] !== slot) {
      slots[index] = slot;
      sums[index] = 0;
      counts[index] = 0;
    }
    sums[index] = (sums[index] ?? 0) + value;
    counts[index] = (counts[index] ?? 0) + 1;
  };
  return {
    add({ at, lastsMs }: { at: number; lastsMs: number }, value: number | undefined): void {
      if (value === undefined || !Number.isFinite(value)) return;
      const last = Math.floor((at + lastsMs - 1) / stepMs);
      for (let slot = Math.max(Math.floor(at / stepMs), last - size + 1); slot <= last; slot += 1) put(slot, value);
    },
    steps(asked: { now: number; stepMs: number; count: number }): (number | undefined)[] {
      const each = asked.stepMs / stepMs;
      const last = Math.floor(asked.now / asked.stepMs);
      return Array.from({ length: asked.count }, (_, column) => {
        const first = (last - asked.count + 1 + column) * each;
        let [sum, count] = [0, 0];
        for (let slot = first; slot < first + each; slot += 1) {
          const index = slot % size;
          if (slots[index] !== slot) continue;
          sum += sums[index] ?? 0;
          count += counts[index] ?? 0;
        }
        return count === 0 ? undefined : sum / count;
      });
    },
  };
}
