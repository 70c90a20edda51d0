import { describeHistory } from "../../src/local/history.ts";
import type { LocalActions } from "../../src/local/server.ts";
import { FIGURES } from "../../src/telemetry/history.ts";

/** A daemon that does nothing of what it is asked. */
export const noActions: LocalActions = {
  drain: () => ({ holds: [] }),
  reclaim: () => ({ holds: [] }),
  resume: () => ({ holds: [] }),
  pauseSampling: async () => undefined,
  resumeSampling: async () => undefined,
  usage: () => ({ node: { id: "n", publicKey: "", replaces: [] }, records: [] }),
  history: () =>
    describeHistory({
      ...{ sinceMs: 0, nowMs: 0, stepMs: 10_000, buckets: new Map(), spans: [], marks: [] },
      figures: FIGURES,
    }),
  rotateKey: async () => ({ state: "pending", nodeId: "n" }),
  logs: async function* () {},
};
