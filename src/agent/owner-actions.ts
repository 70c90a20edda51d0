import type { SamplingPause } from "../gpu/sampling-pause.ts";
import type { Identity } from "../link/identity.ts";
import type { Link } from "../link/link.ts";
import { describeHistory } from "../local/history.ts";
import type { LocalActions } from "../local/server.ts";
import type { Store } from "../store/store.ts";
import type { History } from "../telemetry/history.ts";
import type { Supervisor } from "../workload/supervisor.ts";
import type { NodePreemption } from "./preemption.ts";
import { rotateKey } from "./rotate-key.ts";

export interface OwnerActionsDoors {
  identity: Identity;
  store: Store;
  history: History;
  supervisor: Supervisor;
  preemption: NodePreemption;
  samplingPause: SamplingPause;
  link(): Link | undefined;
}

/** What the owner can have done on this machine; the local API's own words for it. */
export function ownerActions(doors: OwnerActionsDoors): LocalActions {
  const { identity, store, history, supervisor, preemption, samplingPause, link } = doors;
  return {
    drain: (options) => {
      const holds = preemption.drain(options);
      void samplingPause.setMaintenance(preemption.isEmptied);
      return { holds };
    },
    reclaim: (options) => ({ holds: preemption.reclaim(options) }),
    resume: async (options) => {
      const holds = preemption.resume(options);
      if (options.gpus === undefined) {
        await samplingPause.setMaintenance(false);
        await samplingPause.resume();
      }
      return { holds };
    },
    pauseSampling: () => samplingPause.pause(),
    resumeSampling: () => samplingPause.resume(),
    usage: (sinceMs) => ({
      node: { id: identity.nodeId, publicKey: identity.publicKey, replaces: identity.retired },
      records: store.ledger.since(sinceMs),
    }),
    history: (hours) => describeHistory(history.past(hours)),
    logs: (id, options) => supervisor.output.open(id, options),
    rotateKey: () => rotateKey(identity, link()),
  };
}
