import type { LocalActions } from "../../src/local/server.ts";

/** A daemon that does nothing of what it is asked. */
export const noActions: LocalActions = {
  drain: () => ({ holds: [] }),
  reclaim: () => ({ holds: [] }),
  resume: () => ({ holds: [] }),
  pauseSampling: async () => undefined,
  resumeSampling: async () => undefined,
  usage: () => ({ node: { id: "n", publicKey: "", replaces: [] }, records: [] }),
  rotateKey: async () => ({ state: "pending", nodeId: "n" }),
  logs: async function* () {},
};
