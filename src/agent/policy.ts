import type { Config } from "../config/config.ts";
import type { PolicyInfo } from "../protocol/frames.ts";
import type { Policy } from "../workload/admit.ts";

/** What the provider allows, in the workload room's words. */
export function policyOf({ policy, preemption }: Config): Policy {
  const { pullNoProgressSeconds, cosignKeys: _, ...rest } = policy;
  return {
    ...rest,
    pullNoProgressMs: pullNoProgressSeconds * 1000,
    preemptWithinMs: preemption.withinMs,
    priorityPreemption: preemption.priority,
  };
}

/** What a coordinator is told of it. */
export function advertisedPolicy(policy: Policy, { signedImages }: { signedImages: boolean }): PolicyInfo {
  const { images, maxWorkloads, hostPorts, runtime, allowRoot, reserve, preemptWithinMs, priorityPreemption } = policy;
  return {
    images: [...images],
    hostPorts: `${hostPorts.from}-${hostPorts.to}`,
    allowRoot,
    reserve,
    preemptWithinSeconds: preemptWithinMs / 1000,
    priorityPreemption,
    ...(signedImages && { signedImages }),
    ...(maxWorkloads !== undefined && { maxWorkloads }),
    ...(runtime !== undefined && { runtime }),
  };
}
