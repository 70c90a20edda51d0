import { useState } from "preact/hooks";
import type { HostHistory } from "../history.ts";
import { measured, mib, usedOf } from "../in-words.ts";
import { Chart, type Panel } from "./chart.tsx";
import { Meter } from "./meter.tsx";
import { timeShown, type View } from "./view.ts";
import { lastHours, timeOfDay } from "./words.ts";

/** The machine around the GPUs. */
export function HostCard({ view }: { view: View }) {
  const { snapshot, history, hours } = view;
  const { info, telemetry } = snapshot.host;
  const [at, setAt] = useState<number>();
  const series = history?.host;
  const isPast = series !== undefined && at !== undefined;
  const value = (figure: Exclude<keyof HostHistory, "startMs" | "stepMs" | "max">, now?: number) =>
    isPast ? (series[figure][at] ?? undefined) : now;
  const newest = (figure: "networkRxBytesPerSecond" | "networkTxBytesPerSecond") =>
    series?.[figure].findLast((each) => each !== null) ?? undefined;
  const totalMiB = telemetry?.memoryTotalMiB ?? info.memoryMiB;
  const cpu = value("cpuPercent", telemetry?.cpuPercent);
  const memory = value("memoryUsedMiB", telemetry?.memoryUsedMiB);
  const received = value("networkRxBytesPerSecond", newest("networkRxBytesPerSecond"));
  const sent = value("networkTxBytesPerSecond", newest("networkTxBytesPerSecond"));
  const atMs = isPast ? series.startMs + at * series.stepMs : undefined;
  const words = [
    atMs === undefined ? "now" : timeOfDay(atMs),
    `CPUs ${measured(cpu, "percent")} busy`,
    `memory ${memory === undefined ? "-" : mib(memory)}`,
  ].join(", ");
  return (
    <section class="card host" aria-labelledby="machine">
      <div class="title">
        <h2 id="machine">Machine</h2>
        <span class="soft">
          {atMs !== undefined ? (
            <b>{timeOfDay(atMs)}</b>
          ) : (
            [info.cpuModel, info.os].filter((each) => each !== undefined).join(", ")
          )}
        </span>
      </div>
      <div class="meters">
        <Meter name="CPU" color="util" value={measured(cpu, "%")} percent={cpu} />
        <Meter name="Memory" color="vram" value={usedOf(memory, totalMiB)} percent={((memory ?? 0) / totalMiB) * 100} />
        <Meter name="Received" color="power" value={rate(received)} />
        <Meter name="Sent" color="temp" value={rate(sent)} />
      </div>
      <Chart
        panels={panelsOf(series, totalMiB)}
        startMs={series?.startMs ?? 0}
        stepMs={series?.stepMs ?? 1}
        shown={timeShown(view)}
        ticks={(history?.marks ?? [])
          .filter(({ kind, gpus }) => kind === "node" && gpus === undefined)
          .map(({ atMs: when }) => ({ atMs: when, color: "--soft" }))}
        at={at}
        onPoint={setAt}
        label={`This machine over the ${lastHours(hours)}: arrow keys go through the time`}
        atInWords={words}
      />
    </section>
  );
}

function panelsOf(series: HostHistory | undefined, totalMiB: number): Panel[] {
  const memory = (series?.memoryUsedMiB ?? []).map((used) => (used === null ? null : (used / totalMiB) * 100));
  const rates = [...(series?.max.networkRxBytesPerSecond ?? []), ...(series?.max.networkTxBytesPerSecond ?? [])];
  const most = Math.max(1024, ...rates.map((each) => each ?? 0));
  return [
    {
      heightPx: 84,
      left: { max: 100, ticks: [0, 50, 100].map((percent) => [percent, `${percent} %`]) },
      lines: [
        { values: series?.max.cpuPercent ?? [], color: "--util", fill: "--util-shadow", isShadow: true, side: "left" },
        { values: series?.cpuPercent ?? [], color: "--util", fill: "--util-fill", side: "left" },
        { values: memory, color: "--vram", side: "left" },
      ],
    },
    {
      heightPx: 64,
      left: { max: most, ticks: [0, most].map((bytes) => [bytes, rate(bytes).replace("/s", "")]) },
      lines: [
        { values: series?.networkRxBytesPerSecond ?? [], color: "--power", fill: "--power-fill", side: "left" },
        { values: series?.networkTxBytesPerSecond ?? [], color: "--temp", side: "left" },
      ],
    },
  ];
}

/** "1.2 MiB/s". */
function rate(bytesPerSecond: number | undefined): string {
  if (bytesPerSecond === undefined) return "-";
  if (bytesPerSecond < 1024 * 1024) return `${Math.round(bytesPerSecond / 1024)} KiB/s`;
  const value = bytesPerSecond / 1024 / 1024;
  return `${value < 100 ? value.toFixed(1) : Math.round(value)} MiB/s`;
}
