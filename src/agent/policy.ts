import type { Config } from "../config/config.ts";
import type { EngineInfo, PolicyInfo } from "../protocol/agent-frames.ts";
import type { Policy } from "../workload/admit.ts";
import { mapsRoot } from "../workload/engine-demands.ts";

/**
 * What the provider allows, in the workload room's words. Whether root inside is allowed follows the engine where the provider has not
 * said: only where that root is an ordinary user of this machine (docs/decisions/016).
 */
export function policyOf({ policy, preemption }: Config, engine: () => EngineInfo): Policy {
  const { pullNoProgressSeconds, allowRoot, allowCaches, userns, cosignKeys: _, ...rest } = policy;
  return {
    ...rest,
    ...(userns === "require" && { userns }),
    forbidCaches: !allowCaches,
    get allowRoot() {
      return allowRoot ?? mapsRoot(engine());
    },
    pullNoProgressMs: pullNoProgressSeconds * 1000,
    preemptWithinMs: preemption.withinMs,
    priorityPreemption: preemption.priority,
  };
}

/** What a coordinator is told of it. */
export function advertisedPolicy(policy: Policy, { signedImages }: { signedImages: boolean }): PolicyInfo {
  const { images, maxWorkloads, hostPorts, runtime, userns, allowRoot, reserve, preemptWithinMs, priorityPreemption } =
    policy;
  const { digestOnly, forbidCaches, readOnlyRoot, max = {} } = policy;
  return {
    images: [...images],
    hostPorts: `${hostPorts.from}-${hostPorts.to}`,
    allowRoot,
    reserve,
    preemptWithinSeconds: preemptWithinMs / 1000,
    priorityPreemption,
    ...(digestOnly === true && { digestOnly }),
    ...(forbidCaches === true && { allowCaches: false }),
    ...(readOnlyRoot === true && { readOnlyRoot }),
    ...(userns !== undefined && { userns }),
    ...(Object.keys(max).length > 0 && { max }),
    ...(signedImages && { signedImages }),
    ...(maxWorkloads !== undefined && { maxWorkloads }),
    ...(runtime !== undefined && { runtime }),
  };
}
