import type { Logger } from "pino";
import type { Config } from "../config/config.ts";
import { type Listener, startListener } from "../local/listener.ts";
import type { Snapshot } from "../local/snapshot.ts";
import { TEXT_FORMAT } from "../metrics/text.ts";

/** What the page shows comes from here. */
export interface NodePageDoors {
  config: Config;
  /** As the owner's socket tells it. */
  snapshot(): Promise<Snapshot>;
  /** What `/metrics` answers. */
  metrics(): Promise<string>;
  log: Logger;
}

/** What a browser and Prometheus see of the node; undefined where the configuration wants neither. */
export async function nodePage({ config, snapshot, metrics, log }: NodePageDoors): Promise<Listener | undefined> {
  const { listen } = config.metrics;
  if (listen === "off") return undefined;
  return await startListener({
    listen,
    routes: {
      "/metrics": { forOthers: true, answer: async () => ({ type: TEXT_FORMAT, body: await metrics() }) },
      "/v1/status": {
        answer: async () => ({ type: "application/json", body: `${JSON.stringify(await snapshot())}\n` }),
      },
    },
    log,
  });
}
