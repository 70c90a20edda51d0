import { setTimeout as sleep } from "node:timers/promises";
import type { LocalClient } from "../local/client.ts";
import { duration } from "../local/in-words.ts";
import type { Snapshot, WorkloadStatus } from "../local/snapshot.ts";

const LOOK_MS = 200;

/**
 * Follows GPUs that were taken back until nothing of a tenant is on them: `say` gets a line for each workload that has to leave, and one for
 * each that has left. `mine` tells which workloads are meant. Resolves at once where there are none; ends with the signal.
 */
export async function followTakingBack(
  daemon: Pick<LocalClient, "status">,
  mine: (workload: WorkloadStatus, snapshot: Snapshot) => boolean,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const leaving = new Set<string>();
  for (;;) {
    const snapshot = await daemon.status({ signal });
    const live = snapshot.workloads.filter((workload) => workload.finishedAt === undefined && mine(workload, snapshot));
    for (const workload of live) {
      if (leaving.has(workload.id)) continue;
      leaving.add(workload.id);
      say(`  ${workload.id} is told and saves its work${timeLeft(workload, snapshot.at)} …\n`);
    }
    for (const id of leaving) {
      if (live.some((workload) => workload.id === id)) continue;
      leaving.delete(id);
      const ended = snapshot.workloads.find((workload) => workload.id === id);
      say(`  ${id} is gone (${ended?.state ?? "ended"})\n`);
    }
    if (live.length === 0) return;
    await sleep(LOOK_MS, undefined, { signal });
  }
}

function timeLeft({ notice }: WorkloadStatus, at: string): string {
  if (notice?.deadline === undefined) return "";
  return `, for ${duration(Math.max(0, Date.parse(notice.deadline) - Date.parse(at)))} at most`;
}
