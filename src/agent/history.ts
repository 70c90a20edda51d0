import type { Logger } from "pino";
import type { Store } from "../store/store.ts";
import { History } from "../telemetry/history.ts";

/** The node's last day, kept in its store, with the events of the log as marks. */
export function nodeHistory(store: Store, log: Logger): History & Disposable {
  const history = new History({ memory: store.history, now: Date.now, log });
  store.onAppend((events) => history.happened(events));
  return history;
}
