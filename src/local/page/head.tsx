import { upInWords } from "../../protocol/reliability.ts";
import { between, duration, mib, usedOf } from "../in-words.ts";
import type { Snapshot } from "../snapshot.ts";
import type { View } from "./view.ts";

const DAY_MS = 86_400_000;

/** Who and where. */
export function Head({ view: { snapshot, now } }: { view: View }) {
  const { node, host, engine, reliability } = snapshot;
  const { info, telemetry } = host;
  const at = new Date(now).toISOString();
  const uptimeMs = node.uptimeSeconds * 1000 + (now - Date.parse(snapshot.at));
  return (
    <header class="head">
      <div class="title">
        <h1>{node.name}</h1>
        <span class={`chip ${node.state}`}>{node.state}</span>
        <span class="soft version">
          gpunode {node.version}, up {duration(uptimeMs)}
        </span>
      </div>
      <dl>
        <div>
          <dt>coordinator</dt>
          <dd>
            <Connection connection={snapshot.connection} at={at} />
          </dd>
        </div>
        <div>
          <dt>host</dt>
          <dd>
            {[
              `${info.cpus} CPUs${telemetry?.cpuPercent === undefined ? "" : ` ${Math.round(telemetry.cpuPercent)} % busy`}`,
              `memory ${usedOf(telemetry?.memoryUsedMiB, telemetry?.memoryTotalMiB ?? info.memoryMiB)}`,
              ...(telemetry?.diskFreeMiB === undefined ? [] : [`disk ${mib(telemetry.diskFreeMiB)} free`]),
            ].join(", ")}
            {", "}
            {engine.available ? (
              `${engine.kind} ${engine.version ?? ""}`.trim()
            ) : (
              <strong class="bad">{engine.kind} is not available</strong>
            )}
          </dd>
        </div>
        {reliability !== undefined && (
          <div>
            <dt>30 days</dt>
            <dd>{reliabilityInWords(reliability, now)}</dd>
          </div>
        )}
      </dl>
    </header>
  );
}

function Connection({ connection, at }: { connection: Snapshot["connection"]; at: string }) {
  const { url = "", state, since, lastError, retryAt, unackedEvents } = connection;
  const why = lastError === undefined ? "" : `: ${lastError}`;
  const retry = retryAt === undefined ? "" : `, next try in ${between(at, retryAt)}`;
  const waiting =
    unackedEvents === 0 ? "" : `, ${unackedEvents} ${unackedEvents === 1 ? "event" : "events"} to deliver`;
  switch (state) {
    case "off":
      return <>none configured (coordinator.url)</>;
    case "connected":
      return (
        <>
          {url} <strong class="good">connected</strong> for {between(since, at)}
          {waiting}
        </>
      );
    case "connecting":
      return (
        <>
          {url} <strong class="warn">connecting</strong> since {between(since, at)}
          {why}
          {waiting}
        </>
      );
    case "waiting":
      return (
        <>
          {url} <strong class="bad">not connected</strong> for {between(since, at)}
          {why}
          {retry}
          {waiting}
        </>
      );
  }
}

function reliabilityInWords(known: NonNullable<Snapshot["reliability"]>, now: number): string {
  const { succeeded, failed, stopped, preempted, lost } = known.workloads;
  const counts: [number, string][] = [
    [failed, "failed"],
    [stopped, "stopped"],
    [preempted, "taken back"],
    [lost, "lost"],
  ];
  const ends = counts.flatMap(([count, word]) => (count === 0 ? [] : [`${count} ${word}`]));
  const knownMs = now - Date.parse(known.since);
  const since = knownMs < 29 * DAY_MS ? [`known for ${duration(knownMs)}`] : [];
  return [`up ${upInWords(known)}`, `${succeeded} done`, ...ends, ...since].join(", ");
}
