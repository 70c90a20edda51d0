import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { BRIDGE_PREFIX } from "./rules.ts";

/** The kernel takes 15 characters for a device's name (IFNAMSIZ). */
const DEVICE_NAME_MOST = 15;

/** Name of the bridge of a node's network: the same again for the same network, another for any other. */
export function bridgeOf(nodeId: string, network: string): string {
  const hash = createHash("sha256").update(`${nodeId}\n${network}`).digest("hex");
  return `${BRIDGE_PREFIX}${hash}`.slice(0, DEVICE_NAME_MOST);
}

/** Network devices of this network namespace, which `/sys/class/net` is not bound to. */
export async function devices(): Promise<string[]> {
  const text = await readFile("/proc/net/dev", "utf8");
  return text
    .split("\n")
    .filter((line) => line.includes(":"))
    .map((line) => line.slice(0, line.indexOf(":")).trim());
}

/** True where a workload's network is there, also one that another agent left to its workload. */
export async function anyBridge(): Promise<boolean> {
  return (await devices()).some((name) => name.startsWith(BRIDGE_PREFIX));
}
