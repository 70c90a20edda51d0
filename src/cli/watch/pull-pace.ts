import type { Snapshot, WorkloadStatus } from "../../local/snapshot.ts";

/** How fast an image comes, and how long it will still take; absent while that is not known. */
export interface Pace {
  bytesPerSecond?: number;
  remainingMs?: number;
}

export interface PullPaces {
  see(snapshot: Snapshot): void;
  of(workload: WorkloadStatus): Pace;
}

/** The pace is that of the last ten seconds, told once two have passed. */
const WINDOW_MS = 10_000;
const LEAST_MS = 2_000;

export function createPullPaces(): PullPaces {
  let pulls = new Map<string, { at: number; bytes: number }[]>();
  return {
    see({ at, workloads }) {
      const now = Date.parse(at);
      const next = new Map<string, { at: number; bytes: number }[]>();
      for (const workload of workloads) {
        if (workload.pull === undefined) continue;
        const bytes = workload.pull.currentBytes;
        const before = (pulls.get(keyOf(workload)) ?? []).filter((point) => now - point.at <= WINDOW_MS);
        // A pull that begins anew counts from there.
        const last = before.at(-1);
        next.set(keyOf(workload), [...(last !== undefined && bytes < last.bytes ? [] : before), { at: now, bytes }]);
      }
      pulls = next;
    },
    of(workload) {
      const points = pulls.get(keyOf(workload)) ?? [];
      const [first, last] = [points[0], points.at(-1)];
      if (first === undefined || last === undefined || last.at - first.at < LEAST_MS) return {};
      const bytesPerSecond = (1000 * (last.bytes - first.bytes)) / (last.at - first.at);
      const { currentBytes = 0, totalBytes = 0 } = workload.pull ?? {};
      if (bytesPerSecond === 0 || totalBytes <= currentBytes) return { bytesPerSecond };
      return { bytesPerSecond, remainingMs: (1000 * (totalBytes - currentBytes)) / bytesPerSecond };
    },
  };
}

function keyOf({ id, generation }: WorkloadStatus): string {
  return `${id}#${generation}`;
}
