import type {
  Advertise,
  EngineInfo,
  Hold,
  HostInfo,
  ImageInfo,
  PolicyInfo,
  Problem,
  Reliability,
} from "../protocol/agent-frames.ts";
import type { Gpu } from "../protocol/gpu.ts";

/** All that is known of the node at one moment, from which it is advertised. */
export interface NodeView {
  gpus: readonly Gpu[];
  /** Who keeps what from being lent. */
  holds: readonly Hold[];
  host: HostInfo;
  engine: EngineInfo;
  policy: PolicyInfo;
  images: readonly ImageInfo[];
  draining: boolean;
  /** undefined where nothing is known yet. */
  reliability: Reliability | undefined;
  problems: readonly Problem[];
}

/** An advertisement before the link numbers it. */
export type Advertisement = Omit<Advertise, "type" | "revision">;

export function advertisement(view: NodeView): Advertisement {
  const { host, engine, policy, reliability } = view;
  return {
    gpus: [...view.gpus],
    host,
    engine,
    policy,
    images: [...view.images],
    state: view.draining ? "draining" : "available",
    holds: [...view.holds],
    ...(reliability !== undefined && { reliability }),
    problems: [...view.problems],
  };
}

/** The same GPUs, each with who holds it. */
export function withHolders(gpus: readonly Gpu[], holders: ReadonlyMap<string, string>): Gpu[] {
  return gpus.map((gpu) => {
    const holder = holders.get(gpu.uuid);
    const { mig } = gpu;
    return {
      ...gpu,
      ...(holder !== undefined && { allocatedTo: holder }),
      ...(mig !== undefined && {
        mig: {
          ...mig,
          instances: mig.instances.map((instance) => {
            const workload = holders.get(instance.uuid);
            return workload === undefined ? instance : { ...instance, allocatedTo: workload };
          }),
        },
      }),
    };
  });
}
