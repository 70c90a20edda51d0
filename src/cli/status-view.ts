import { holderInWords, holdInWords, holdOn, whoIn } from "../local/hold-words.ts";
import { between, duration, gib, measured, mib, usedOf } from "../local/in-words.ts";
import type { GpuStatus, Snapshot, WorkloadStatus } from "../local/snapshot.ts";
import { upInWords } from "../protocol/reliability.ts";
import { type Cell, cut, paint, printable, renderTable, type Style, type TableOptions } from "./table.ts";

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

const STATE_STYLE: Record<Snapshot["node"]["state"], Style> = {
  available: "green",
  draining: "yellow",
  stopping: "yellow",
};

function header(snapshot: Snapshot, options: TableOptions): string {
  const { node, host, engine } = snapshot;
  const { info, telemetry } = host;
  const state = paint(node.state, STATE_STYLE[node.state], options);
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
    ...reliability(snapshot),
    ...(snapshot.page === undefined ? [] : [row("page", snapshot.page)]),
    "",
  ].join("\n");
}

/** What the node has proved to be like; no line where nothing is known. */
function reliability({ reliability: known, at }: Snapshot): string[] {
  if (known === undefined) return [];
  const { succeeded, failed, stopped, preempted, lost } = known.workloads;
  const counts: [number, string][] = [
    [failed, "failed"],
    [stopped, "stopped"],
    [preempted, "taken back"],
    [lost, "lost"],
  ];
  const ends = counts.flatMap(([count, word]) => (count === 0 ? [] : [`${count} ${word}`]));
  const line = [`up ${upInWords(known)}`, `${succeeded} done`, ...ends].join(", ");
  const isYoung = Date.parse(at) - Date.parse(known.since) < 29 * 86_400_000;
  return [row("30 days", line, ...(isYoung ? [`known for ${between(known.since, at)}`] : []))];
}

function row(title: string, ...parts: string[]): string {
  return `${title.padEnd(12)} ${parts.join("  ")}`;
}

function connection({ connection, at }: Snapshot, options: TableOptions): string[] {
  const { url = "", state, since, lastError, retryAt, unackedEvents } = connection;
  const why = lastError === undefined ? "" : `: ${printable(lastError)}`;
  const waiting =
    unackedEvents === 0 ? [] : [`${unackedEvents} ${unackedEvents === 1 ? "event" : "events"} to deliver`];
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
        instances.length > 0 && holdOn(gpu.uuid, holds) === undefined ? "" : holder(gpu, { holds, workloads, at }),
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
  const style = { healthy: "green", degraded: "yellow", failed: "red" } as const;
  return { text: health.status, style: style[health.status] };
}

/** Who uses it, and who wants it or keeps it. Who has to leave is told for as long as it is there. */
function holder(
  { uuid, allocatedTo, allocatable, mig }: GpuStatus,
  { holds, workloads, at }: Pick<Snapshot, "holds" | "workloads" | "at">,
): Cell {
  const hold = holdOn(uuid, holds);
  if (hold === undefined) return allocatedTo ?? (allocatable ? "free" : "not given out");
  const units = [uuid, ...(mig?.instances ?? []).map((instance) => instance.uuid)];
  const there = workloads.filter(
    ({ finishedAt, gpus }) => finishedAt === undefined && gpus.some((of) => units.includes(of)),
  );
  const users = there.map(({ id }) => id).join(", ");
  return { text: users === "" ? holderInWords(hold, at) : `${users} → ${holderInWords(hold, at)}`, style: "yellow" };
}

/** Why what is kept from being lent is kept, and until when. */
function keptBack({ gpus, holds, at }: Snapshot, options: TableOptions): string {
  if (holds.length === 0) return "";
  const indexOf = (uuid: string) => shortGpu(uuid, gpus);
  const lines = holds.map((hold) => `  ${printable(holdInWords(hold, indexOf, at))}\n`);
  return `${paint("Not lent", "bold", options)}\n${lines.join("")}`;
}

const WORKLOAD_STYLE: Partial<Record<WorkloadStatus["state"], Style>> = {
  running: "green",
  failed: "red",
  rejected: "red",
  lost: "red",
  preempted: "yellow",
  stopping: "yellow",
};

/** Also `gpunode workloads`. */
export function workloadTable(
  { workloads, gpus, at }: Pick<Snapshot, "workloads" | "gpus" | "at">,
  options: TableOptions,
): string {
  const rows = workloads.map((workload): Cell[] => {
    const style = WORKLOAD_STYLE[workload.state];
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

/** The index of a GPU, as the table above it shows it; a MIG instance as index and profile. */
function shortGpu(uuid: string, gpus: readonly GpuStatus[]): string {
  for (const gpu of gpus) {
    if (gpu.uuid === uuid) return String(gpu.index);
    const instance = gpu.mig?.instances.find((candidate) => candidate.uuid === uuid);
    if (instance !== undefined) return `${gpu.index}:${instance.profile}`;
  }
  return cut(uuid, 12);
}

function remark(
  { state, reason, message, exitCode, oomKilled, restarts, ports, pull, healthy, notice }: WorkloadStatus,
  at: string,
): string {
  const why = message ?? reason;
  return [
    ...(notice === undefined ? [] : [noticeInWords(notice, at)]),
    ...(state === "pulling" && pull !== undefined ? [pulled(pull)] : []),
    ...(why === undefined || why === notice?.message ? [] : [why]),
    ...(oomKilled === true ? ["out of memory"] : []),
    // "exited with code 3" says it already.
    ...(exitCode === undefined || exitCode === 0 || why?.includes(`code ${exitCode}`) ? [] : [`exit code ${exitCode}`]),
    ...(restarts === 0 ? [] : [`restarted ${restarts} ×`]),
    ...(healthy === false && state === "running" ? ["not healthy"] : []),
    ...(state === "running" ? ports.map(({ container, host }) => `${host}→${container}`) : []),
  ].join(", ");
}

function noticeInWords({ cause, message, deadline }: NonNullable<WorkloadStatus["notice"]>, at: string): string {
  const why = message ?? whoIn(cause);
  return deadline === undefined ? `warned: ${why}` : `gone in ${between(at, deadline)}: ${why}`;
}

function pulled({ currentBytes, totalBytes }: { currentBytes: number; totalBytes: number }): string {
  const current = gib(currentBytes / 1024 / 1024);
  return totalBytes === 0
    ? `${current} GiB pulled`
    : `${Math.floor((100 * currentBytes) / totalBytes)} % of ${gib(totalBytes / 1024 / 1024)} GiB pulled`;
}

function problems({ gpus, problems: known, lastError, at }: Snapshot, options: TableOptions): string {
  const lines = [
    ...known.map(({ message, since }) => `${message}${since === undefined ? "" : ` (for ${between(since, at)})`}`),
    ...gpus.flatMap(({ index, health }) =>
      health.reasons.map(({ message }) => `GPU ${index} is ${health.status}: ${message}`),
    ),
  ];
  const now =
    lines.length === 0
      ? ""
      : `${paint("Problems", "bold", options)}\n${lines.map((line) => `  ${printable(line)}\n`).join("")}`;
  const before =
    lastError === undefined ? "" : `Last error, ${between(lastError.at, at)} ago: ${printable(lastError.message)}\n`;
  return [now, before].filter((part) => part !== "").join("\n");
}
