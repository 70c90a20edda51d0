import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "pino";
import { packageRoot } from "../cli/package-root.ts";
import type { Config } from "../config/config.ts";
import type { Identity } from "../link/identity.ts";
import { describeHistory, hoursOf } from "../local/history.ts";
import { type Listener, type Route, startListener } from "../local/listener.ts";
import type { Snapshot } from "../local/snapshot.ts";
import { usageDays } from "../local/usage-days.ts";
import { TEXT_FORMAT } from "../metrics/text.ts";
import { publicKeyFrom } from "../protocol/identity.ts";
import type { Store } from "../store/store.ts";
import type { History } from "../telemetry/history.ts";

/** What the page shows comes from here. */
export interface NodePageDoors {
  config: Pick<Config, "metrics">;
  identity: Identity;
  store: Pick<Store, "ledger">;
  history: History;
  /** As the owner's socket tells it. */
  snapshot(): Promise<Snapshot>;
  /** What `/metrics` answers. */
  metrics(): Promise<string>;
  /** Aborted when the daemon leaves. */
  signal: AbortSignal;
  log: Logger;
}

/** What a browser and Prometheus see of the node; undefined where the configuration wants neither. */
export async function nodePage(doors: NodePageDoors): Promise<Listener | undefined> {
  const { config, identity, store, history, snapshot, metrics, signal, log } = doors;
  const { listen } = config.metrics;
  if (listen === "off") return undefined;
  const usage = usageDays({
    records: (sinceMs, after) => store.ledger.rows(sinceMs, after),
    keys: () => [identity, ...identity.retired].map(({ publicKey }) => publicKeyFrom(publicKey)),
    now: Date.now,
    signal,
  });
  return await startListener({
    listen,
    routes: {
      "/metrics": { forOthers: true, answer: async () => ({ type: TEXT_FORMAT, body: await metrics() }) },
      "/": asset("index.html", "text/html; charset=utf-8"),
      "/page.css": asset("page.css", "text/css; charset=utf-8"),
      "/page.js": asset("page.js", "text/javascript; charset=utf-8"),
      "/icon.svg": asset("icon.svg", "image/svg+xml"),
      "/v1/status": json(snapshot),
      "/v1/history": json((query) => describeHistory(history.past(hoursOf(query)))),
      "/v1/usage-days": json(usage),
    },
    log,
  });
}

function json(value: (query: URLSearchParams) => unknown): Route {
  return {
    answer: async (query) => ({ type: "application/json", body: `${JSON.stringify(await value(query))}\n` }),
  };
}

/** A file of the page, as `scripts/build.mjs` made it; read when it is first asked for. */
function asset(name: string, type: string): Route {
  let body: Promise<Buffer> | undefined;
  return {
    async answer() {
      body ??= readFile(join(packageRoot(), "dist/page", name));
      // One that failed is read again.
      body.catch(() => {
        body = undefined;
      });
      return { type, body: await body };
    },
  };
}
