import { holdInWords, holdOn } from "../local/hold-words.ts";
import { between, duration, measured, mib, usedOf } from "../local/in-words.ts";
import type { GpuStatus, Snapshot, WorkloadStatus } from "../local/snapshot.ts";
import { noticeInWords, pulledInWords, remarksOn, shortGpu } from "../local/workload-words.ts";
import {
  HEALTH_COLORS,
  holderOf,
  NODE_COLORS,
  problemsInWords,
  reliabilityInWords,
  undeliveredInWords,
  WORKLOAD_COLORS,
} from "./status-words.ts";
import { type Cell, paint, printable, renderTable, type TableOptions } from "./table.ts";

/** The whole snapshot for a person: who and where, GPUs, workloads, what is wrong. */
export function statusInWords(snapshot: Snapshot, options: TableOptions): string {
  const parts = [
    header(snapshot, options),
    snapshot.gpus.length === 0 ? "No GPU is in sight.\n" : gpuTable(snapshot, options),
    keptBack(snapshot, options),
    snapshot.workloads.length === 0 ? "No workloads.\n" : workloadTable(snapshot, options),
    problems(snapshot, options),
  ];
  return parts.filter((part) => part !== "").join("\n");
}

function header(snapshot: Snapshot, options: TableOptions): string {
  const { node, host, engine } = snapshot;
  const { info, telemetry } = host;
  const state = paint(node.state, NODE_COLORS[node.state], options);
  const reliability = reliabilityInWords(snapshot);
  const figures = [
    `${info.cpus} CPUs${telemetry?.cpuPercent === undefined ? "" : ` ${Math.round(telemetry.cpuPercent)} % busy`}`,
    `memory ${usedOf(telemetry?.memoryUsedMiB, telemetry?.memoryTotalMiB ?? info.memoryMiB)}`,
    ...(telemetry?.diskFreeMiB === undefined ? [] : [`disk ${mib(telemetry.diskFreeMiB)} free`]),
    engine.available
      ? `${engine.kind} ${engine.version ?? ""}`.trim()
      : paint(`${engine.kind} is not available`, "red", options),
  ];
  return [
    row(
      "node",
      `${printable(node.name)} is ${state}`,
      `gpunode ${node.version}, up ${duration(node.uptimeSeconds * 1000)}, pid ${node.pid}`,
    ),
    row("coordinator", ...connection(snapshot, options)),
    row("host", figures.join(", ")),
    ...(reliability.length === 0 ? [] : [row("30 days", ...reliability)]),
    ...(snapshot.page === undefined ? [] : [row("page", snapshot.page)]),
    "",
  ].join("\n");
}

function row(title: string, ...parts: string[]): string {
  return `${title.padEnd(12)} ${parts.join("  ")}`;
}

function connection({ connection, at }: Snapshot, options: TableOptions): string[] {
  const { url = "", state, since, lastError, retryAt } = connection;
  const why = lastError === undefined ? "" : `: ${printable(lastError)}`;
  const waiting = undeliveredInWords(connection);
  const retry = retryAt === undefined ? "" : `, next try in ${between(at, retryAt)}`;
  switch (state) {
    case "off":
      return ["none configured (coordinator.url)"];
    case "connected":
      return [`${url} ${paint("connected", "green", options)} for ${between(since, at)}`, ...waiting];
    case "connecting":
      return [`${url} ${paint("connecting", "yellow", options)} since ${between(since, at)}${why}`, ...waiting];
    case "waiting":
      return [`${url} ${paint("not connected", "red", options)} for ${between(since, at)}${why}${retry}`, ...waiting];
  }
}

function gpuTable({ gpus, holds, workloads, at }: Snapshot, options: TableOptions): string {
  const rows = gpus.flatMap((gpu): Cell[][] => {
    const { telemetry } = gpu;
    const power = measured(telemetry?.powerWatts, "W");
    const limit =
      gpu.powerLimitWatts === undefined ? power : `${power.replace(" W", "")}/${Math.round(gpu.powerLimitWatts)} W`;
    const instances = (gpu.mig?.instances ?? []).map((instance): Cell[] => [
      "",
      `  MIG ${instance.profile}`,
      mib(instance.vramMiB),
      "",
      "",
      "",
      "",
      instance.allocatedTo ?? "free",
    ]);
    return [
      [
        String(gpu.index),
        gpu.name,
        vramCell(gpu),
        measured(telemetry?.utilizationPercent, "%"),
        measured(telemetry?.temperatureCelsius, "°C"),
        power === "-" ? power : limit,
        healthCell(gpu),
        instances.length > 0 && holdOn(gpu.uuid, holds) === undefined ? "" : holderCell(gpu, { holds, workloads, at }),
      ],
      ...instances,
    ];
  });
  const columns = [
    { title: "GPU", align: "right" as const },
    { title: "NAME", shrinks: true as const },
    { title: "VRAM", align: "right" as const },
    { title: "UTIL", align: "right" as const },
    { title: "TEMP", align: "right" as const },
    { title: "POWER", align: "right" as const },
    { title: "HEALTH" },
    { title: "HELD BY", shrinks: true as const },
  ];
  return renderTable(columns, rows, options);
}

/** How much of the VRAM is in use; coloured where it is nearly all. */
function vramCell({ telemetry, vramMiB }: GpuStatus): Cell {
  const text = usedOf(telemetry?.vramUsedMiB, telemetry?.vramTotalMiB ?? vramMiB);
  if (telemetry?.pressure === "critical") return { text, style: "red" };
  return telemetry?.pressure === "elevated" ? { text, style: "yellow" } : text;
}

/** A GPU's health with its colour. */
export function healthCell({ health }: Pick<GpuStatus, "health">): Cell {
  return { text: health.status, style: HEALTH_COLORS[health.status] };
}

function holderCell(gpu: GpuStatus, known: Pick<Snapshot, "holds" | "workloads" | "at">): Cell {
  const { text, isKept } = holderOf(gpu, known);
  return isKept ? { text, style: "yellow" } : text;
}

/** Why what is kept from being lent is kept, and until when. */
function keptBack({ gpus, holds, at }: Snapshot, options: TableOptions): string {
  if (holds.length === 0) return "";
  const indexOf = (uuid: string) => shortGpu(uuid, gpus);
  const lines = holds.map((hold) => `  ${printable(holdInWords(hold, indexOf, at))}\n`);
  return `${paint("Not lent", "bold", options)}\n${lines.join("")}`;
}

/** Also `gpunode workloads`. */
export function workloadTable(
  { workloads, gpus, at }: Pick<Snapshot, "workloads" | "gpus" | "at">,
  options: TableOptions,
): string {
  const rows = workloads.map((workload): Cell[] => {
    const style = WORKLOAD_COLORS[workload.state];
    const { usage } = workload;
    return [
      workload.id,
      style === undefined ? workload.state : { text: workload.state, style },
      between(workload.since ?? workload.acceptedAt, at),
      workload.gpus.map((uuid) => shortGpu(uuid, gpus)).join(",") || "-",
      measured(usage?.cpuPercent, "%"),
      usage?.memoryMiB === undefined ? "-" : mib(usage.memoryMiB),
      workload.image,
      remark(workload, at),
    ];
  });
  const columns = [
    { title: "WORKLOAD", shrinks: true as const },
    { title: "STATE" },
    { title: "FOR", align: "right" as const },
    { title: "GPU" },
    { title: "CPU", align: "right" as const },
    { title: "MEMORY", align: "right" as const },
    { title: "IMAGE", shrinks: true as const },
    { title: "REMARK", shrinks: true as const },
  ];
  return renderTable(columns, rows, options);
}

function remark(workload: WorkloadStatus, at: string): string {
  const { state, pull, notice } = workload;
  return [
    ...(notice === undefined ? [] : [noticeInWords(notice, at)]),
    ...(state === "pulling" && pull !== undefined ? [pulledInWords(pull)] : []),
    ...remarksOn(workload),
  ].join(", ");
}

function problems(snapshot: Snapshot, options: TableOptions): string {
  const { lastError, at } = snapshot;
  const lines = problemsInWords(snapshot);
  const now =
    lines.length === 0
      ? ""
      : `${paint("Problems", "bold", options)}\n${lines.map((line) => `  ${printable(line)}\n`).join("")}`;
  const before =
    lastError === undefined ? "" : `Last error, ${between(lastError.at, at)} ago: ${printable(lastError.message)}\n`;
  return [now, before].filter((part) => part !== "").join("\n");
}
