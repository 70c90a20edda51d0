import { holdInWords } from "../../local/hold-words.ts";
import { between, duration, usedOf } from "../../local/in-words.ts";
import type { GpuStatus, Snapshot, WorkloadStatus } from "../../local/snapshot.ts";
import { shortGpu } from "../../local/workload-words.ts";
import { problemsInWords } from "../status-words.ts";
import type { Earnings } from "./earnings.ts";
import type { Block } from "./fit.ts";
import { gpuRows, graphColumns, graphRows, type Showing } from "./gpu-rows.ts";
import { connectionRow, hostRow, leavingRows, lentRow, pageRow, reliabilityRow, titleRow } from "./head-rows.ts";
import { KEYS_LINE, type ViewState } from "./keys.ts";
import { ends, type Line, own, say } from "./line.ts";
import type { PullPaces } from "./pull-pace.ts";
import { workloadRows } from "./workload-rows.ts";

/** From the most important line of the window to the least. */
export const RANK = {
  title: 0,
  leaving: 1,
  trouble: 2,
  /** GPUs, workloads and problems take turns from here, a hundredth apart. */
  entries: 3,
  heading: 3.025,
  connection: 3.035,
  host: 6,
  graphs: 8,
  laterEntries: 8.5,
  lent: 9,
  ended: 10,
  reliability: 11,
  page: 11.5,
  keys: 12,
  gaps: 13,
  tallGraphs: 14,
} as const;

/** So many entries of each list come before the graphs, the rest after them. */
const ENTRIES_BEFORE_GRAPHS = 8;
/** So many of those that ended are shown, unless all are asked for. */
const FEW_ENDED = 5;

/** A part of the picture. */
export interface Part extends Block {
  /** An entry of one of the lists that scroll. */
  scrolls?: true;
  /** It is the head of this list. */
  heads?: string;
}

export function entryRank(index: number): number {
  return index < ENTRIES_BEFORE_GRAPHS ? RANK.entries + index / 100 : RANK.laterEntries + index / 10_000;
}

function one(rank: number, line: Line): Part {
  return { lines: [line], rank };
}

export function gap(): Part {
  return one(RANK.gaps, []);
}

/** Above the lists: who it is, who has to go, and how it stands with the coordinator, the machine and the bill. */
export function headParts(
  { snapshot, now, earnings }: { snapshot: Snapshot; now: number; earnings?: Earnings },
  width: number,
): Part[] {
  const { line: connection, isWell } = connectionRow(snapshot, { width, now });
  const reliability = reliabilityRow(snapshot, width);
  return [
    one(RANK.title, titleRow(snapshot, { width, now })),
    ...leavingRows(snapshot, { width, now }).map((line) => ({ ...one(RANK.leaving, line), list: "departure" })),
    one(isWell ? RANK.connection : RANK.trouble, connection),
    one(RANK.host, hostRow(snapshot, width)),
    ...(earnings === undefined ? [] : [one(RANK.lent, lentRow(earnings, width))]),
    ...(reliability === undefined ? [] : [one(RANK.reliability, reliability)]),
    ...(snapshot.page === undefined ? [] : [one(RANK.page, pageRow(snapshot.page, width))]),
  ];
}

/** `graphs`: how many rows high; 0: only within the rows of the table, undefined: none. */
export function gpuParts(
  snapshot: Snapshot,
  { width, showing, graphs }: { width: number; showing: Showing; graphs?: number },
): Part[] {
  if (snapshot.gpus.length === 0) return [one(RANK.entries, [say("No GPU is in sight.", "yellow")])];
  const { head, gpus } = gpuRows(snapshot, { width, showing, inlineGraphs: graphs === 0 });
  const graphed = (gpu: GpuStatus): Line[] =>
    graphs === undefined || graphs === 0 ? [] : graphRows(gpu, { width, height: graphs, showing });
  return [
    { ...one(RANK.heading, head), heads: "GPU" },
    ...snapshot.gpus.map(
      (gpu, index): Part => ({
        lines: [...(gpus[index] ?? []), ...graphed(gpu)],
        rank: entryRank(index),
        list: "GPU",
        scrolls: true,
      }),
    ),
  ];
}

export function workloadParts(
  { snapshot, now, paces }: { snapshot: Snapshot; now: number; paces: PullPaces },
  { allEnded }: Pick<ViewState, "allEnded">,
  width: number,
): Part[] {
  const live = snapshot.workloads.filter((workload) => !isOver(workload));
  const ended = snapshot.workloads
    .filter(isOver)
    .sort((a, b) => (b.finishedAt ?? b.acceptedAt).localeCompare(a.finishedAt ?? a.acceptedAt));
  const workloads = [...live, ...(allEnded ? ended : ended.slice(0, FEW_ENDED))];
  const left = live.length + ended.length - workloads.length;
  if (workloads.length === 0) return [one(RANK.entries, [say("No workloads.", "dim")])];
  const { head, rows } = workloadRows(snapshot, { workloads, width, now, paces });
  return [
    { ...one(RANK.heading, head), heads: "workload" },
    ...workloads.map(
      (workload, index): Part => ({
        lines: [rows[index] ?? []],
        rank: isOver(workload) ? RANK.ended + index / 1000 : entryRank(index) + 0.005,
        list: "workload",
        scrolls: true,
      }),
    ),
    ...(left === 0 ? [] : [one(RANK.ended + 0.5, [own(`… ${left} more that ended (w)`, "dim")])]),
  ];
}

const OVER = new Set<WorkloadStatus["state"]>(["succeeded", "failed", "stopped", "preempted", "rejected", "lost"]);

function isOver({ state }: WorkloadStatus): boolean {
  return OVER.has(state);
}

/** What is wrong, what is kept from being lent and why, and what went wrong last. */
export function troubleParts(snapshot: Snapshot, now: number): Part[] {
  const { holds, gpus, lastError } = snapshot;
  const at = new Date(now).toISOString();
  const entries = [
    ...problemsInWords(snapshot).map((text): Line => [own("problem   ", "red"), say(text)]),
    ...gpus.flatMap(pressureLine),
    ...holds.map((hold): Line => {
      const text = holdInWords(hold, (uuid) => shortGpu(uuid, gpus), at);
      return [own("not lent  ", "yellow"), say(text)];
    }),
  ];
  const before =
    lastError === undefined ? [] : [say(`last error ${between(lastError.at, at)} ago: ${lastError.message}`, "dim")];
  return [
    ...entries.map((line, index): Part => ({ ...one(entryRank(index) + 0.002, line), list: "problem" })),
    ...(before.length === 0 ? [] : [one(RANK.reliability, before)]),
  ];
}

/** In words, for who sees no colours. */
function pressureLine({ index, vramMiB, telemetry }: GpuStatus): Line[] {
  const { pressure = "normal", vramUsedMiB, vramTotalMiB = vramMiB } = telemetry ?? {};
  if (pressure === "normal") return [];
  const label = own("pressure  ", pressure === "critical" ? "red" : "yellow");
  return [[label, say(`GPU ${index}: VRAM is ${pressure}, ${usedOf(vramUsedMiB, vramTotalMiB)}`)]];
}

/** Which keys there are, where they are read, and over what time the graphs go, where there are any. */
export function footParts(
  { stepMs, hasGraphs, hasKeys }: { stepMs: number; hasGraphs: boolean; hasKeys: boolean },
  width: number,
): Part[] {
  const graphed = hasGraphs ? [say(`graphs: last ${duration(graphColumns(width) * stepMs)}`, "dim")] : [];
  const line = hasKeys ? ends(KEYS_LINE, graphed, width) : graphed;
  return line.length === 0 ? [] : [gap(), one(RANK.keys, line)];
}
