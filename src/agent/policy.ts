import type { Config } from "../config/config.ts";
import type { PolicyInfo } from "../protocol/frames.ts";
import type { Policy } from "../workload/admit.ts";

/** What the provider allows, in the workload room's words. */
export function policyOf({ policy }: Config): Policy {
  const { pullNoProgressSeconds, ...rest } = policy;
  return { ...rest, pullNoProgressMs: pullNoProgressSeconds * 1000 };
}

/** What a coordinator is told of it. */
export function advertisedPolicy({ images, maxWorkloads, hostPorts, runtime, allowRoot, reserve }: Policy): PolicyInfo {
  return {
    images: [...images],
    hostPorts: `${hostPorts.from}-${hostPorts.to}`,
    allowRoot,
    reserve,
    ...(maxWorkloads !== undefined && { maxWorkloads }),
    ...(runtime !== undefined && { runtime }),
  };
}
