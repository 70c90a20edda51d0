import type { History } from "../history.ts";
import type { Snapshot } from "../snapshot.ts";

/** What the parts of the page show. */
export interface View {
  snapshot: Snapshot;
  /** The daemon's time, milliseconds since the epoch. */
  now: number;
  /** How far back the charts reach. */
  hours: number;
  /** Of these hours; undefined until it is known. */
  history: History | undefined;
}

/** The time the charts show: up to the newest history, so that nothing moves between two. */
export function timeShown({ now, hours, history }: Pick<View, "now" | "hours" | "history">): {
  fromMs: number;
  toMs: number;
} {
  const toMs = history === undefined ? now : Date.parse(history.at);
  return { fromMs: toMs - hours * 3_600_000, toMs };
}
