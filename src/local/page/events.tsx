import type { History } from "../history.ts";
import { shortGpu } from "../workload-words.ts";
import type { View } from "./view.ts";
import { lastHours, timeOfDay } from "./words.ts";

type Mark = History["marks"][number];

const MOST = 100;

/** What happened in the time shown, newest first: the marks of the charts, for reading. */
export function Events({ view: { snapshot, history, hours } }: { view: View }) {
  const marks = (history?.marks ?? []).toReversed();
  return (
    <details class="card events">
      <summary>
        <h2>What happened in the {lastHours(hours)}</h2>{" "}
        <span class="soft">{history === undefined ? "" : marks.length}</span>
      </summary>
      {marks.length === 0 && <p class="soft">Nothing out of the ordinary.</p>}
      <ol>
        {marks.slice(0, MOST).map((mark, at) => (
          <li key={`${mark.atMs} ${marks.length - at}`}>
            <time dateTime={new Date(mark.atMs).toISOString()}>{timeOfDay(mark.atMs)}</time>
            <span>{inWords(mark, snapshot)}</span>
          </li>
        ))}
      </ol>
    </details>
  );
}

function inWords({ kind, state, gpus, workloads, message }: Mark, { gpus: known }: View["snapshot"]): string {
  const where =
    gpus === undefined || gpus.length === 0 ? "" : `GPU ${gpus.map((uuid) => shortGpu(uuid, known)).join(", ")}`;
  const who = workloads?.join(", ") ?? "";
  const why = message === undefined ? "" : `: ${message}`;
  switch (kind) {
    case "preemption":
      return `${who} is told to go${where === "" ? "" : `, ${where}`}${why}`;
    case "workload":
      return `${who} ${state}${where === "" ? "" : ` on ${where}`}${why}`;
    case "health":
      return `${where} is ${state}${why}`;
    case "pressure":
      return `${where === "" ? "Memory" : where} under ${state} pressure${why}`;
    case "node":
      return `${where === "" ? "The node" : where} is ${state}${why}`;
  }
}
