import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";

/** Linux counts process times in these (USER_HZ). */
const TICK_MS = 10;

/**
 * CPU of a process itself, user and system, in milliseconds: of its threads that live, to the nanosecond (`schedstat`; the ticks of `stat`
 * are ten milliseconds, which a daemon uses in two seconds).
 */
export function cpuMsOf(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  const nanoseconds = threads.map((thread) => {
    try {
      return Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]);
    } catch {
      // It ended meanwhile.
      return 0;
    }
  });
  return nanoseconds.reduce((sum, each) => sum + each, 0) / 1e6;
}

/** CPU of a process, its live descendants and all that they have reaped, in milliseconds. */
export function cpuMsOfTree(pid: number): number {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
    const theirs = children.reduce((sum, child) => sum + (child === "" ? 0 : cpuMsOfTree(Number(child))), 0);
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) * TICK_MS + theirs;
  } catch {
    // It ended meanwhile: its parent has it.
    return 0;
  }
}

/** Resident memory of a process, MiB. */
export function rssMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

/** How long a program takes from its start to its end, milliseconds. Throws where it fails. */
export function runMs(program: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): number {
  const began = performance.now();
  execFileSync(program, args, { env, stdio: ["ignore", "pipe", "pipe"], maxBuffer: 64 * 1024 * 1024 });
  return performance.now() - began;
}
