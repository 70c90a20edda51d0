import type { Logger } from "pino";
import type { Config } from "../config/config.ts";
import { createDockerEngine } from "../engine/docker.ts";
import { uplink } from "../host/uplink.ts";
import type { Isolation } from "../isolation/isolation.ts";
import type { Networks } from "../isolation/needs.ts";
import type { Problem } from "../protocol/agent-frames.ts";
import { containerName } from "../workload/record.ts";
import type { Runner } from "../workload/runner.ts";

export interface NodeIsolationDoors {
  config: Config;
  nodeId: string;
  engine: { readonly networks: Networks };
  /** All workloads, also those that have ended. */
  runners(): readonly Pick<Runner, "record" | "isOver">[];
  /** The node's problems have changed. */
  changed(): void;
  log: Logger;
}

/** Isolation as the agent uses it. */
export interface NodeIsolation extends Isolation {
  problems(): Problem[];
}

/** Keeps this node's workloads off the owner's network; undefined where the owner does not want that. */
export async function nodeIsolation(doors: NodeIsolationDoors): Promise<NodeIsolation | undefined> {
  const { config, nodeId, engine, runners, changed, log } = doors;
  const { isolateLan, allow, bandwidthMbit } = config.network;
  if (!isolateLan) return undefined;
  // Loaded where it is wanted: its tables of addresses are read as it is.
  const { exceptionsOf, nftFirewall, startIsolation } = await import("../isolation/parts.ts");
  const { runtime } = config.policy;
  // A node of its own, as the engine sees it: nobody takes the probe's containers for workloads that got lost.
  const probe = createDockerEngine({ socketPath: config.docker.socket, nodeId: `${nodeId}.probe`, log });
  const isolation = await startIsolation({
    nodeId,
    networks: engine.networks,
    probe,
    firewall: nftFirewall(),
    exceptions: exceptionsOf(allow),
    ...(bandwidthMbit !== undefined && { bandwidthMbit }),
    uplinkMtu: () => uplink()?.mtu,
    ...(runtime !== undefined && { runtime }),
    live: () => runners().flatMap(({ record, isOver }) => (isOver ? [] : [containerName(record, nodeId)])),
    changed,
    log,
  });
  return {
    ...isolation,
    problems() {
      const message = isolation.problem();
      return message === undefined ? [] : [{ code: "network_isolation", message }];
    },
    async [Symbol.asyncDispose]() {
      await isolation[Symbol.asyncDispose]();
      await probe[Symbol.asyncDispose]();
    },
  };
}
