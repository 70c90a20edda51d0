import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { between, measured, mib } from "../in-words.ts";
import type { WorkloadStatus } from "../snapshot.ts";
import { noticeInWords, pulledInWords, remarksOn, shortGpu } from "../workload-words.ts";
import { colorOf } from "./lanes.ts";
import type { View } from "./view.ts";

/** So many that have ended are shown unasked. */
const ENDED_SHOWN = 6;

/** What runs and ran. */
export function Workloads({ view }: { view: View }) {
  const { workloads } = view.snapshot;
  const [isWhole, setWhole] = useState(false);
  const live = workloads.filter(({ finishedAt }) => finishedAt === undefined);
  const ended = workloads.filter(({ finishedAt }) => finishedAt !== undefined);
  const shown = [...live, ...(isWhole ? ended : ended.slice(0, ENDED_SHOWN))];
  return (
    <section class="card" aria-labelledby="workloads">
      <h2 id="workloads">Workloads</h2>
      {workloads.length === 0 ? (
        <p class="soft">None yet.</p>
      ) : (
        <table class="workloads">
          <thead>
            <tr>
              <th scope="col">Workload</th>
              <th scope="col">State</th>
              <th scope="col" class="number">
                For
              </th>
              <th scope="col">GPU</th>
              <th scope="col" class="number">
                CPU
              </th>
              <th scope="col" class="number">
                Memory
              </th>
              <th scope="col">Image</th>
              <th scope="col">Remark</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((workload) => (
              <Row key={`${workload.id} ${workload.generation}`} workload={workload} view={view} />
            ))}
          </tbody>
        </table>
      )}
      {ended.length > ENDED_SHOWN && (
        <button type="button" class="more" aria-expanded={isWhole} onClick={() => setWhole(!isWhole)}>
          {isWhole ? "show fewer" : `show ${ended.length - ENDED_SHOWN} more that have ended`}
        </button>
      )}
    </section>
  );
}

function Row({ workload, view: { snapshot, now } }: { workload: WorkloadStatus; view: View }) {
  const { id, state, since, acceptedAt, gpus, usage, image, notice, pull } = workload;
  const at = new Date(now).toISOString();
  const said = remarksOn(workload).join(", ");
  const isPulling = state === "pulling" && pull !== undefined;
  return (
    <tr>
      <th scope="row">
        <span class={gpus.length > 0 ? `dot work-${colorOf(id)}` : "dot none"} aria-hidden="true" /> {id}
      </th>
      <Cell title="State">
        <span class={`state ${state}`}>{state}</span>
      </Cell>
      <Cell title="For" kind="number">
        {between(since ?? acceptedAt, at)}
      </Cell>
      <Cell title="GPU" isEmpty={gpus.length === 0}>
        {gpus.map((uuid) => shortGpu(uuid, snapshot.gpus)).join(", ") || "-"}
      </Cell>
      <Cell title="CPU" kind="number" isEmpty={usage?.cpuPercent === undefined}>
        {measured(usage?.cpuPercent, "%")}
      </Cell>
      <Cell title="Memory" kind="number" isEmpty={usage?.memoryMiB === undefined}>
        {usage?.memoryMiB === undefined ? "-" : mib(usage.memoryMiB)}
      </Cell>
      <Cell title="Image" kind="image">
        {image}
      </Cell>
      <Cell title="Remark" kind="remark" isEmpty={said === "" && notice === undefined && !isPulling}>
        {notice !== undefined && <strong class="notice">{noticeInWords(notice, at)}</strong>}
        {isPulling && (
          <>
            {pull.totalBytes > 0 && (
              <progress max={pull.totalBytes} value={pull.currentBytes} aria-label={`pull of ${id}`} />
            )}{" "}
            {pulledInWords(pull)}
          </>
        )}
        {notice !== undefined && said !== "" && ", "}
        {said}
      </Cell>
    </tr>
  );
}

/** `title` is shown where the table is too narrow for columns; one that says nothing is left out there. */
function Cell(props: {
  title: string;
  kind?: "number" | "image" | "remark";
  isEmpty?: boolean;
  children: ComponentChildren;
}) {
  const { title, kind, isEmpty = false, children } = props;
  return (
    <td class={kind} data-title={title} data-empty={isEmpty || undefined}>
      <span>{children}</span>
    </td>
  );
}
