import { readdirSync, readFileSync } from "node:fs";

/** Ends every process of the group `pgid` (SIGKILL). A group that is gone is none of ours any more: nothing happens. */
export function endGroup(pgid: number): void {
  try {
    process.kill(-pgid, "SIGKILL");
  } catch {
    // ESRCH: already over.
  }
}

/** Whether a process of the group `pgid` still runs. One that only waits to be reaped has closed all it had open. */
export function isGroupAlive(pgid: number): boolean {
  try {
    process.kill(-pgid, 0);
  } catch {
    return false;
  }
  // Somebody is left: dead ones that nobody has reaped yet count as gone.
  return readdirSync("/proc").some((entry) => {
    if (!/^\d+$/.test(entry)) return false;
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, "utf8");
      // The name in parentheses may hold anything: fields are counted from behind it.
      const [state, , group] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return Number(group) === pgid && state !== "Z" && state !== "X";
    } catch {
      return false;
    }
  });
}
