import { useState } from "preact/hooks";
import type { GpuHistory, History } from "../history.ts";
import { holderInWords, holdOn } from "../hold-words.ts";
import { between, duration, gib, measured, mib, usedOf } from "../in-words.ts";
import type { GpuStatus } from "../snapshot.ts";
import { unitsOf, usersOf } from "../workload-words.ts";
import { Band } from "./band.tsx";
import { Chart, type Panel } from "./chart.tsx";
import { Command } from "./command.tsx";
import { colorOf, segmentsOf } from "./lanes.ts";
import { Meter } from "./meter.tsx";
import { timeShown, type View } from "./view.ts";
import { heldBack, lastHours, timeOfDay } from "./words.ts";

type Mark = History["marks"][number];

const HEALTH_MARK = { healthy: "●", degraded: "▲", failed: "■" } as const;

/** One GPU: its figures now, its last hours, who has it. */
export function GpuCard({ gpu, view }: { gpu: GpuStatus; view: View }) {
  const { snapshot, history } = view;
  const [at, setAt] = useState<number>();
  const shown = timeShown(view);
  const series = history?.series[gpu.uuid];
  const units = unitsOf(gpu);
  const segments = segmentsOf(history?.spans ?? [], units, shown);
  const marks = (history?.marks ?? []).filter(({ gpus }) => gpus?.some((uuid) => units.includes(uuid)) === true);
  const past = series === undefined || at === undefined ? undefined : valuesAt(series, at);
  const atMs = past === undefined || series === undefined ? undefined : series.startMs + (at ?? 0) * series.stepMs;
  const figures = past ?? nowOf(gpu);
  const { telemetry, health } = gpu;
  const totalMiB = telemetry?.vramTotalMiB ?? gpu.vramMiB;
  const pressure = past === undefined && telemetry?.pressure !== "normal" ? telemetry?.pressure : undefined;
  const limit = gpu.powerLimitWatts ?? gpu.powerLimitDefaultWatts;
  const watts = measured(figures.powerWatts, "W");
  return (
    <article class={`card gpu ${health.status}`} aria-labelledby={gpu.uuid}>
      <header>
        <h3 id={gpu.uuid}>
          <span class="index">{gpu.index}</span> {gpu.name}
        </h3>
        <span class={`chip ${health.status}`}>
          <span aria-hidden="true">{HEALTH_MARK[health.status]}</span> {health.status}
        </span>
      </header>
      {health.reasons.map(({ code, message }) => (
        <p key={code} class="reason">
          {message}
        </p>
      ))}
      <div class="meters">
        <Meter
          name="Utilization"
          color="util"
          value={measured(figures.utilizationPercent, "%")}
          percent={figures.utilizationPercent}
        />
        <Meter
          name="VRAM"
          color="vram"
          value={usedOf(figures.vramUsedMiB, totalMiB)}
          percent={share(figures.vramUsedMiB, totalMiB)}
          level={pressure}
        />
        <Meter
          name="Power"
          color="power"
          value={limit === undefined || watts === "-" ? watts : `${watts.replace(" W", "")}/${Math.round(limit)} W`}
          percent={share(figures.powerWatts, limit)}
        />
        <Meter
          name="Temperature"
          color="temp"
          value={measured(figures.temperatureCelsius, "°C")}
          percent={figures.temperatureCelsius}
        />
      </div>
      <Chart
        panels={panelsOf(series, { totalMiB, limit })}
        startMs={series?.startMs ?? shown.fromMs}
        stepMs={series?.stepMs ?? 1}
        shown={shown}
        ticks={marks.map((mark) => ({ atMs: mark.atMs, color: colorOfMark(mark) }))}
        at={past === undefined ? undefined : at}
        onPoint={setAt}
        label={`GPU ${gpu.index} over the ${lastHours(view.hours)}: arrow keys go through the time`}
        atInWords={inWords(figures, atMs)}
      />
      <Band segments={segments} label={`Who had GPU ${gpu.index} in the ${lastHours(view.hours)}`} />
      <Instances gpu={gpu} />
      <footer>
        {atMs === undefined ? (
          <Holder gpu={gpu} view={view} />
        ) : (
          <Then atMs={atMs} stepMs={series?.stepMs ?? 0} segments={segments} marks={marks} />
        )}
        <Command
          text={`gpunode ${holdOn(gpu.uuid, snapshot.holds) === undefined ? "reclaim" : "resume"} --gpu ${gpu.index}`}
        />
      </footer>
    </article>
  );
}

type Figures = {
  [figure in "utilizationPercent" | "vramUsedMiB" | "powerWatts" | "temperatureCelsius"]: number | undefined;
};

function nowOf({ telemetry }: GpuStatus): Figures {
  const { utilizationPercent, vramUsedMiB, powerWatts, temperatureCelsius } = telemetry ?? {};
  return { utilizationPercent, vramUsedMiB, powerWatts, temperatureCelsius };
}

function valuesAt(series: GpuHistory, at: number): Figures {
  return {
    utilizationPercent: series.utilizationPercent[at] ?? undefined,
    vramUsedMiB: series.vramUsedMiB[at] ?? undefined,
    powerWatts: series.powerWatts[at] ?? undefined,
    temperatureCelsius: series.temperatureCelsius[at] ?? undefined,
  };
}

function inWords({ utilizationPercent, vramUsedMiB, powerWatts, temperatureCelsius }: Figures, atMs?: number): string {
  return [
    atMs === undefined ? "now" : timeOfDay(atMs),
    `utilization ${measured(utilizationPercent, "percent")}`,
    `VRAM ${vramUsedMiB === undefined ? "-" : mib(vramUsedMiB)}`,
    `power ${measured(powerWatts, "watts")}`,
    `temperature ${measured(temperatureCelsius, "degrees")}`,
  ].join(", ");
}

function panelsOf(
  series: GpuHistory | undefined,
  { totalMiB, limit }: { totalMiB: number | undefined; limit: number | undefined },
): Panel[] {
  const vram = (series?.vramUsedMiB ?? []).map((used) => (used === null ? null : (share(used, totalMiB) ?? null)));
  const highest = Math.max(0, ...(series?.max.powerWatts ?? []).map((watts) => watts ?? 0));
  // A board may pass its limit for a moment.
  const mostWatts = Math.max(limit ?? 0, highest) || 100;
  return [
    {
      heightPx: 104,
      left: { max: 100, ticks: [0, 50, 100].map((percent) => [percent, `${percent} %`]) },
      lines: [
        {
          values: series?.max.utilizationPercent ?? [],
          color: "--util",
          fill: "--util-shadow",
          isShadow: true,
          side: "left",
        },
        { values: series?.utilizationPercent ?? [], color: "--util", fill: "--util-fill", side: "left" },
        { values: vram, color: "--vram", side: "left" },
      ],
    },
    {
      heightPx: 64,
      left: { max: mostWatts * 1.02, ticks: [0, mostWatts].map((watts) => [watts, `${Math.round(watts)} W`]) },
      right: { max: 100, ticks: [0, 50, 100].map((degrees) => [degrees, `${degrees} °C`]) },
      lines: [
        { values: series?.powerWatts ?? [], color: "--power", fill: "--power-fill", side: "left" },
        { values: series?.temperatureCelsius ?? [], color: "--temp", side: "right" },
      ],
    },
  ];
}

function share(part: number | undefined, whole: number | undefined): number | undefined {
  return part === undefined || whole === undefined || whole <= 0 ? undefined : (part / whole) * 100;
}

function colorOfMark({ kind, state }: Mark): `--${string}` {
  if (state === "failed" || state === "lost" || state === "critical") return "--bad";
  return kind === "preemption" || state === "degraded" || state === "elevated" || state === "draining"
    ? "--warn"
    : "--soft";
}

/** Who has it now, and who wants it or keeps it. */
function Holder({ gpu, view: { snapshot, now } }: { gpu: GpuStatus; view: View }) {
  const at = new Date(now).toISOString();
  const hold = holdOn(gpu.uuid, snapshot.holds);
  const users = usersOf(gpu, snapshot.workloads);
  const kept = heldBack(gpu, snapshot);
  return (
    <p class="holder">
      {users.map(({ id, since, acceptedAt }) => (
        <span key={id} class="user">
          <span class={`dot work-${colorOf(id)}`} aria-hidden="true" /> <b>{id}</b>{" "}
          <span class="soft">{between(since ?? acceptedAt, at)}</span>
        </span>
      ))}
      {users.length > 0 && hold !== undefined && <span class="soft"> → </span>}
      {hold !== undefined && (
        <span class="held">
          {holderInWords(hold, at)}
          {hold.until !== undefined && (
            <span class="soft"> ({duration(Math.max(0, Date.parse(hold.until) - now))} left)</span>
          )}
        </span>
      )}
      {users.length === 0 && hold === undefined && <span class="soft">{kept ?? "free"}</span>}
    </p>
  );
}

/** The same at the time pointed at. */
function Then(props: {
  atMs: number;
  stepMs: number;
  segments: readonly { workload: string; fromMs: number; toMs: number }[];
  marks: readonly Mark[];
}) {
  const { atMs, stepMs, segments, marks } = props;
  const users = segments.filter(({ fromMs, toMs }) => fromMs < atMs + stepMs && toMs > atMs);
  const near = marks.filter((mark) => Math.abs(mark.atMs - atMs - stepMs / 2) <= stepMs);
  const what = near.map(({ state, message }) => message ?? state);
  return (
    <p class="holder">
      <b>{timeOfDay(atMs)}</b> {[...new Set(users.map(({ workload }) => workload))].join(", ") || "free"}
      {what.length > 0 && <span class="soft">: {what.join("; ")}</span>}
    </p>
  );
}

function Instances({ gpu }: { gpu: GpuStatus }) {
  const instances = gpu.mig?.instances ?? [];
  if (instances.length === 0) return null;
  const used = new Map(gpu.telemetry?.mig?.map((each) => [each.uuid, each]));
  return (
    <table class="instances">
      <caption class="unseen">MIG instances of GPU {gpu.index}</caption>
      <thead class="unseen">
        <tr>
          <th scope="col">Instance</th>
          <th scope="col">VRAM</th>
          <th scope="col">Held by</th>
        </tr>
      </thead>
      <tbody>
        {instances.map(({ uuid, profile, vramMiB, allocatedTo }) => {
          const usedMiB = used.get(uuid)?.vramUsedMiB;
          return (
            <tr key={uuid}>
              <td>MIG {profile}</td>
              <td class="number">{usedMiB === undefined ? `${gib(vramMiB)} GiB` : usedOf(usedMiB, vramMiB)}</td>
              <td>
                {allocatedTo === undefined ? (
                  <span class="soft">free</span>
                ) : (
                  <>
                    <span class={`dot work-${colorOf(allocatedTo)}`} aria-hidden="true" /> {allocatedTo}
                  </>
                )}
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
