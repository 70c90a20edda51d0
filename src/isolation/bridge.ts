import { createHash } from "node:crypto";
import { networkInterfaces } from "node:os";
import { BRIDGE_PREFIX } from "./rules.ts";

/** The kernel takes 15 characters for a device's name (IFNAMSIZ). */
const DEVICE_NAME_MOST = 15;

/** Name of the bridge of a node's network: the same again for the same network, another for any other. */
export function bridgeOf(nodeId: string, network: string): string {
  const hash = createHash("sha256").update(`${nodeId}\n${network}`).digest("hex");
  return `${BRIDGE_PREFIX}${hash}`.slice(0, DEVICE_NAME_MOST);
}

/**
 * Bridges of workloads on which a container runs, in this network namespace; those of other agents, too. One without a running container has no
 * carrier and is not among them: nothing can come from it.
 */
export function liveBridges(): string[] {
  return Object.keys(networkInterfaces()).filter((name) => name.startsWith(BRIDGE_PREFIX));
}
