import { between, duration, gib, measured, mib, usedOf } from "../../local/in-words.ts";
import type { Snapshot, WorkloadStatus } from "../../local/snapshot.ts";
import { noticeReason, remarksOn, shortGpu } from "../../local/workload-words.ts";
import { WORKLOAD_COLORS } from "../status-words.ts";
import { glyphsOf, widthOf } from "../text-width.ts";
import { layOut, type WatchCell, type WatchColumn } from "./columns.ts";
import { bar } from "./graph.ts";
import { type Line, own, parts, say, type Tone, widthOfLine } from "./line.ts";
import type { Pace, PullPaces } from "./pull-pace.ts";

const COLUMNS: readonly WatchColumn[] = [
  { title: "WORKLOAD", keep: 100, least: 12 },
  { title: "STATE", keep: 95 },
  { title: "FOR", align: "right", keep: 50 },
  { title: "GPU", keep: 70 },
  { title: "CPU", align: "right", keep: 40 },
  { title: "MEMORY", align: "right", keep: 45 },
  { title: "VRAM", align: "right", keep: 42 },
  { title: "IMAGE", keep: 20, least: 16 },
  { title: "REMARK", keep: 90, least: 12, grows: true },
];

/** The table of `workloads`, one row each. `now` in milliseconds since the epoch. */
export function workloadRows(
  { gpus }: Pick<Snapshot, "gpus">,
  {
    workloads,
    width,
    now,
    paces,
  }: { workloads: readonly WorkloadStatus[]; width: number; now: number; paces: PullPaces },
): { head: Line; rows: Line[] } {
  const at = new Date(now).toISOString();
  const cells = workloads.map((workload): WatchCell[] => {
    const { id, state, since, acceptedAt, usage, image, finishedAt } = workload;
    const color = WORKLOAD_COLORS[state];
    const quiet: Tone[] = finishedAt === undefined ? [] : ["dim"];
    const memory = usage?.memoryMiB === undefined ? "" : usedOrLimited(usage.memoryMiB, usage.memoryLimitMiB);
    const vram = (usage?.vramUsedMiB ?? 0) === 0 ? "" : mib(usage?.vramUsedMiB ?? 0);
    return [
      [say(id, ...(finishedAt === undefined ? (["bold"] as const) : quiet))],
      [say(state, ...quiet, ...(color === undefined ? [] : [color]))],
      [say(between(since ?? acceptedAt, at), ...quiet)],
      [say(workload.gpus.map((uuid) => shortGpu(uuid, gpus)).join(","), ...quiet)],
      [say(usage?.cpuPercent === undefined ? "" : measured(usage.cpuPercent, "%"), ...quiet)],
      [say(memory, ...quiet)],
      [say(vram, ...quiet)],
      imageCell(image),
      remark(workload, now, paces.of(workload)),
    ];
  });
  return layOut(COLUMNS, cells, width);
}

function usedOrLimited(usedMiB: number, limitMiB: number | undefined): string {
  if (limitMiB === undefined) return mib(usedMiB);
  return Math.min(usedMiB, limitMiB) < 1024 ? `${mib(usedMiB)}/${mib(limitMiB)}` : usedOf(usedMiB, limitMiB);
}

/** Of an image that is too long its end is shown, which tells it from others. */
function imageCell(image: string): WatchCell {
  const text = say(image).text;
  return {
    width: widthOf(text),
    draw(room) {
      if (widthOf(text) <= room) return [own(text, "dim")];
      const letters = [...glyphsOf(text)];
      while (letters.reduce((sum, { width }) => sum + width, 0) > room - 1) letters.shift();
      return [own(`…${letters.map((letter) => letter.text).join("")}`, "dim")];
    },
  };
}

function remark(workload: WorkloadStatus, now: number, pace: Pace): WatchCell {
  const { state, pull, notice, finishedAt } = workload;
  const texts = remarksOn(workload);
  if (notice !== undefined) return [noticeIn(notice, now), ...texts.map((text) => say(`, ${text}`))];
  if (state === "pulling" && pull !== undefined) return pullCell(pull, pace);
  const quiet: Tone[] = finishedAt === undefined ? [] : ["dim"];
  return [say([...texts, ...requestsIn(workload)].join(", "), ...quiet)];
}

/** What a workload that answers requests is busy with. */
function requestsIn({ usage }: WorkloadStatus): string[] {
  if (usage?.requests === undefined) return [];
  const { active, queued, ttftMs } = usage.requests;
  return [
    `${active} ${active === 1 ? "request" : "requests"}`,
    ...(queued === 0 ? [] : [`${queued} waiting`]),
    ...(ttftMs === undefined ? [] : [`first token in ${Math.round(ttftMs.p50)} ms`]),
  ];
}

function noticeIn(notice: NonNullable<WorkloadStatus["notice"]>, now: number) {
  if (notice.deadline === undefined) return say(`warned: ${noticeReason(notice)}`, "yellow");
  return say(`gone in ${countdown(Date.parse(notice.deadline) - now)}`, "yellow");
}

/** Seconds to the last one while they matter: "38 s", "1 min 38 s", "2 h 5 min"; "0 s" once it is over. */
export function countdown(milliseconds: number): string {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min ${seconds % 60} s` : duration(milliseconds);
}

const LEAST_BAR = 6;
const LONGEST_BAR = 30;

/** A bar where there is room for one, and the figures, the most telling first. */
function pullCell({ currentBytes, totalBytes }: NonNullable<WorkloadStatus["pull"]>, pace: Pace): WatchCell {
  const share = totalBytes === 0 ? undefined : currentBytes / totalBytes;
  const figures: Line[] = [
    ...(share === undefined ? [] : [[own(`${Math.floor(100 * share)} %`.padStart(6))]]),
    ...(pace.remainingMs === undefined ? [] : [[say(`${duration(pace.remainingMs)} left`)]]),
    [say(totalBytes === 0 ? `${bytes(currentBytes)} pulled` : bytesOf(currentBytes, totalBytes))],
    ...(pace.bytesPerSecond === undefined ? [] : [[say(`${bytes(pace.bytesPerSecond)}/s`)]]),
  ];
  const all = parts(figures, Number.POSITIVE_INFINITY);
  return {
    width: widthOfLine(all) + LONGEST_BAR,
    draw(room) {
      if (share === undefined) return parts(figures, room);
      const shown = parts(figures, Math.max(6, room - LEAST_BAR));
      const columns = Math.min(LONGEST_BAR, room - widthOfLine(shown));
      return columns < LEAST_BAR ? shown : [...bar(share, columns, "green"), ...shown];
    },
  };
}

function bytes(value: number): string {
  const valueMiB = value / 1024 / 1024;
  return valueMiB < 1024 ? `${valueMiB.toFixed(1)} MiB` : `${gib(valueMiB)} GiB`;
}

function bytesOf(current: number, total: number): string {
  const [currentMiB, totalMiB] = [current / 1024 / 1024, total / 1024 / 1024];
  if (totalMiB >= 1024) return `${gib(currentMiB)}/${gib(totalMiB)} GiB`;
  return `${currentMiB.toFixed(1)}/${totalMiB.toFixed(1)} MiB`;
}
