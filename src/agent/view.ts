import type { Config } from "../config/config.ts";
import type { EngineWatch } from "../engine/watch.ts";
import type { Identity } from "../link/identity.ts";
import type { Link } from "../link/link.ts";
import { describe } from "../local/describe.ts";
import type { Listener } from "../local/listener.ts";
import type { Snapshot } from "../local/snapshot.ts";
import type { HostInfo, Problem } from "../protocol/agent-frames.ts";
import type { Store } from "../store/store.ts";
import { type Advertisement, advertisement, withHolders } from "../telemetry/advertisement.ts";
import type { ReliabilityRecord } from "../telemetry/reliability.ts";
import type { Policy } from "../workload/admit.ts";
import { engineLacks } from "../workload/engine-demands.ts";
import type { Supervisor } from "../workload/supervisor.ts";
import type { NodeHealth } from "./health.ts";
import { advertisedPolicy } from "./policy.ts";
import type { NodePreemption } from "./preemption.ts";
import { keyProblems } from "./rotate-key.ts";
import type { NodeTelemetry } from "./telemetry.ts";

export interface NodeViewDoors {
  config: Config;
  version: string;
  identity: Identity;
  /** By the wall clock, milliseconds since the epoch. */
  startedAt: number;
  steady(): number;
  isLeaving(): boolean;
  store: Store;
  policy: Policy;
  host(): HostInfo;
  engine: Pick<EngineWatch, "info" | "images" | "problem">;
  health: NodeHealth;
  preemption: NodePreemption;
  isolation: { problems(): Problem[] } | undefined;
  supervisor: Supervisor;
  telemetry: NodeTelemetry;
  reliability: ReliabilityRecord;
  link(): ReturnType<Link["status"]> | undefined;
  /** The listener of the local page; undefined where there is none, or not yet. */
  page(): Pick<Listener, "url" | "problems"> | undefined;
}

/** The node as it is at one moment, for those who look at it. */
export interface NodeView {
  /** For its owner. */
  snapshot(): Snapshot;
  /** For its coordinator. */
  advertisement(): Advertisement;
  /** What keeps it from being all it could be. */
  problems(): Problem[];
}

export function nodeView(doors: NodeViewDoors): NodeView {
  const { config, version, identity, startedAt, steady, host, engine, store } = doors;
  const { health, preemption, isolation, supervisor, telemetry, reliability } = doors;
  const problems = (): Problem[] => [
    ...health.problems(),
    ...(engine.problem === undefined ? [] : [{ code: "engine_unavailable", message: engine.problem }]),
    ...(isolation?.problems() ?? []),
    ...engineLacks(engine.info, doors.policy),
    ...store.problems,
    ...keyProblems(identity, doors.link(), Date.now()),
  ];
  const common = () => ({
    gpus: withHolders(preemption.marked(health.gpus()), supervisor.holders()),
    holds: preemption.holds(),
    host: host(),
    engine: engine.info,
    problems: problems(),
  });
  return {
    problems,
    snapshot: () =>
      describe({
        ...common(),
        // The coordinator has no use for them.
        problems: [...problems(), ...(doors.page()?.problems() ?? [])],
        now: Date.now(),
        steady: steady(),
        node: {
          id: identity.nodeId,
          name: config.name,
          labels: config.labels,
          version,
          pid: process.pid,
          startedAt,
          state: doors.isLeaving() ? "stopping" : preemption.holdsNode ? "draining" : "available",
        },
        link: doors.link(),
        unackedEvents: store.newest - store.oldest + (store.newest === 0 ? 0 : 1),
        workloads: supervisor.runners(),
        sample: telemetry.collector.latest,
        reliability: reliability.figures,
        page: doors.page()?.url,
      }),
    advertisement: () =>
      advertisement({
        ...common(),
        policy: advertisedPolicy(doors.policy, { signedImages: config.policy.cosignKeys.length > 0 }),
        images: engine.images,
        draining: preemption.holdsNode,
        reliability: reliability.told,
      }),
  };
}
