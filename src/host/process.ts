import { readdirSync, readFileSync } from "node:fs";

/** Files and sockets this process has open, and may have open; absent where the kernel does not tell. */
export interface OpenFiles {
  open?: number;
  most?: number;
}

/** From `/proc/self` (man 5 proc). */
export function openFiles(procDir = "/proc/self"): OpenFiles {
  try {
    // The listing holds the descriptor it was read through.
    const open = readdirSync(`${procDir}/fd`).length - 1;
    const most = /^Max open files +(\d+) /m.exec(readFileSync(`${procDir}/limits`, "utf8"))?.[1];
    return { open, ...(most !== undefined && { most: Number(most) }) };
  } catch {
    return {};
  }
}
