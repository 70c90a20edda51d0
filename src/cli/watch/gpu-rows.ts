import { gib, measured, mib, usedOf } from "../../local/in-words.ts";
import type { GpuStatus, Snapshot } from "../../local/snapshot.ts";
import { HEALTH_COLORS, holderOf } from "../status-words.ts";
import { layOut, type WatchCell, type WatchColumn } from "./columns.ts";
import { graph } from "./graph.ts";
import type { History } from "./history.ts";
import { blank, fill, type Line, say, type Tone } from "./line.ts";

const COLUMNS: readonly WatchColumn[] = [
  { title: "GPU", align: "right", keep: 100 },
  { title: "NAME", keep: 45, least: 14 },
  { title: "UTIL", align: "right", keep: 90 },
  { title: "", keep: 10, least: 12, grows: true },
  { title: "VRAM", align: "right", keep: 85 },
  { title: "TEMP", align: "right", keep: 70 },
  { title: "POWER", align: "right", keep: 55 },
  { title: "HEALTH", keep: 50 },
  { title: "USED BY", keep: 80, least: 8 },
];

export interface Showing {
  history: History;
  /** Milliseconds since the epoch. */
  now: number;
  /** Length of time that a column of a graph stands for. */
  stepMs: number;
}

/** The head of the table of GPUs, and the rows of each: its own and those of its MIG instances. */
export function gpuRows(
  snapshot: Snapshot,
  { width, showing, inlineGraphs }: { width: number; showing: Showing; inlineGraphs: boolean },
): { head: Line; gpus: Line[][] } {
  const groups = snapshot.gpus.map((gpu) => [
    cellsOf(gpu, snapshot, inlineGraphs ? inlineGraph(gpu, showing) : []),
    ...instancesOf(gpu),
  ]);
  const { head, rows } = layOut(COLUMNS, groups.flat(), width);
  const starts = groups.map((_, index) => groups.slice(0, index).reduce((sum, { length }) => sum + length, 0));
  return {
    head,
    gpus: groups.map(({ length }, index) => rows.slice(starts[index] ?? 0, (starts[index] ?? 0) + length)),
  };
}

function cellsOf(gpu: GpuStatus, snapshot: Snapshot, history: WatchCell): WatchCell[] {
  const { telemetry } = gpu;
  const power = measured(telemetry?.powerWatts, "W");
  const limited =
    gpu.powerLimitWatts === undefined || power === "-"
      ? power
      : `${power.replace(" W", "")}/${Math.round(gpu.powerLimitWatts)} W`;
  return [
    [say(String(gpu.index), "bold")],
    [say(gpu.name.replace(/^NVIDIA (?:GeForce )?/, ""))],
    [say(measured(telemetry?.utilizationPercent, "%"))],
    history,
    [say(usedOf(telemetry?.vramUsedMiB, telemetry?.vramTotalMiB ?? gpu.vramMiB), ...pressureTones(gpu))],
    [say(measured(telemetry?.temperatureCelsius, "°C"))],
    [say(limited)],
    [say(gpu.health.status, HEALTH_COLORS[gpu.health.status])],
    usedBy(gpu, snapshot),
  ];
}

function pressureTones({ telemetry }: GpuStatus): Tone[] {
  if (telemetry?.pressure === "critical") return ["red", "bold"];
  return telemetry?.pressure === "elevated" ? ["yellow"] : [];
}

function usedBy(gpu: GpuStatus, snapshot: Snapshot): Line {
  const hasInstances = (gpu.mig?.instances.length ?? 0) > 0;
  const { text, isKept } = holderOf(gpu, snapshot);
  const holder = hasInstances && !isKept ? [] : [say(text, ...holderTones(text, isKept))];
  const strangers = (gpu.telemetry?.processes ?? []).filter(({ workload }) => workload === undefined);
  if (strangers.length === 0) return holder;
  const usedMiB = strangers.reduce((sum, { vramUsedMiB = 0 }) => sum + vramUsedMiB, 0);
  const who = strangers.length === 1 ? `pid ${strangers[0]?.pid}` : `${strangers.length} other programs`;
  return [...holder, say(`${holder.length === 0 ? "" : ", "}${who}${usedMiB === 0 ? "" : ` ${mib(usedMiB)}`}`)];
}

function holderTones(text: string, isKept: boolean): Tone[] {
  if (isKept) return ["yellow"];
  return text === "free" || text === "not given out" ? ["dim"] : [];
}

function instancesOf({ mig, telemetry }: GpuStatus): WatchCell[][] {
  return (mig?.instances ?? []).map(({ uuid, profile, vramMiB, allocatedTo }): WatchCell[] => {
    const used = telemetry?.mig?.find((instance) => instance.uuid === uuid)?.vramUsedMiB;
    const vram = used === undefined ? `${gib(vramMiB)} GiB` : usedOf(used, vramMiB);
    const user = allocatedTo === undefined ? say("free", "dim") : say(allocatedTo);
    return [[], [], [], [], [say(vram)], [], [], [], [say(`MIG ${profile}:`), blank(1), user]];
  });
}

/** Utilization within the row, where there is no room for graphs of their own. */
function inlineGraph({ uuid }: GpuStatus, { history, now, stepMs }: Showing): WatchCell {
  return {
    width: 12,
    draw: (room) => graph(history.steps(uuid, "utilizationPercent", { now, stepMs, count: room }), 1, "cyan")[0] ?? [],
  };
}

/** Columns before a graph's label, and between the two graphs. */
const INDENT = 2;
const LABEL = 5;
/** Below this the second graph would be too short to say anything. */
const TWO_FROM = 36;

/** Columns that each of the graphs has in a window of this width. */
export function graphColumns(width: number): number {
  const room = width - INDENT;
  return room < TWO_FROM ? Math.max(0, room - LABEL) : Math.floor((room - 2 * LABEL - INDENT) / 2);
}

/** Utilization and VRAM side by side, `height` rows high. */
export function graphRows(
  gpu: GpuStatus,
  { width, height, showing: { history, now, stepMs } }: { width: number; height: number; showing: Showing },
): Line[] {
  const count = graphColumns(width);
  const hasTwo = width - INDENT >= TWO_FROM;
  const steps = { now, stepMs, count };
  const [pressed] = pressureTones(gpu);
  const utilization = graph(history.steps(gpu.uuid, "utilizationPercent", steps), height, "cyan");
  const vram = hasTwo ? graph(history.steps(gpu.uuid, "vramPercent", steps), height, pressed ?? "magenta") : [];
  return utilization.map((line, row) => {
    const isLast = row === height - 1;
    const label = (text: string) => (isLast ? fill([say(text, "dim")], LABEL) : [blank(LABEL)]);
    const second = vram[row];
    return [
      blank(INDENT),
      ...label("util"),
      ...line,
      ...(second === undefined ? [] : [blank(INDENT), ...label("vram"), ...second]),
    ];
  });
}
