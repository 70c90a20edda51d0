import { readFileSync } from "node:fs";

/** Number of a group of this machine; undefined where there is none of that name. */
export function groupId(name: string): number | undefined {
  const line = readFileSync("/etc/group", "utf8")
    .split("\n")
    .find((entry) => entry.startsWith(`${name}:`));
  return line === undefined ? undefined : Number(line.split(":")[2]);
}

/** User and group that the service runs as. */
export const SERVICE_USER = "gpunode";
