import type { Snapshot } from "../../local/snapshot.ts";
import type { Earnings } from "./earnings.ts";
import { fitRows, heightUpTo } from "./fit.ts";
import { type Away, titleRow } from "./head-rows.ts";
import { type History, STEPS_MS } from "./history.ts";
import { HELP, type ViewState } from "./keys.ts";
import { allIn, cutLine, ends, inAscii, type Line, own, say } from "./line.ts";
import type { PullPaces } from "./pull-pace.ts";
import {
  entryRank,
  footParts,
  gap,
  gpuParts,
  headParts,
  type Part,
  RANK,
  troubleParts,
  workloadParts,
} from "./sections.ts";

/** All that the picture shows. */
export interface Picture {
  snapshot: Snapshot;
  /** Milliseconds since the epoch. */
  now: number;
  away?: Away;
  history: History;
  paces: PullPaces;
  /** Absent until they were read. */
  earnings?: Earnings;
}

/** What it is shown on. */
export interface Screen {
  columns: number;
  rows: number;
  /** False: ASCII only. */
  unicode: boolean;
  /** Whether keys are read: only then is it worth saying which there are. */
  hasKeys: boolean;
}

export interface Frame {
  /** At most `rows`, each at most `columns` wide. */
  lines: Line[];
  /** The farthest it can be scrolled: entries above the window from which on all others are in it. */
  last: number;
}

const TALLEST_GRAPH = 4;

/** The picture as it is shown. Pure. */
export function frame(picture: Picture, view: ViewState, screen: Screen): Frame {
  const { columns: width, rows } = screen;
  const { lines, last } = view.help ? { lines: HELP, last: 0 } : withAway(picture, view, screen);
  const fitting = lines.slice(0, rows).map((line) => cutLine(line, width));
  return { lines: screen.unicode ? fitting : fitting.map(inAscii), last };
}

/** While the daemon is away its last picture stays, dim and still, under a line that says so. */
function withAway(picture: Picture, view: ViewState, screen: Screen): Frame {
  const { snapshot, now, away } = picture;
  if (away === undefined) return fitted(picture, view, screen);
  const still = { ...picture, now: Date.parse(snapshot.at) };
  const { lines, last } = fitted(still, view, { ...screen, rows: Math.max(1, screen.rows - 1) });
  const title = titleRow(snapshot, { width: screen.columns, now, away });
  return { lines: [title, [say(away.message, "yellow")], ...lines.slice(1).map((line) => allIn("dim", line))], last };
}

function fitted(picture: Picture, view: ViewState, screen: Screen): Frame {
  const { snapshot, now, history } = picture;
  const { columns: width, rows, hasKeys } = screen;
  const stepMs = STEPS_MS[view.zoom] ?? STEPS_MS[0];
  const showing = { history, now, stepMs };
  const troubles = troubleParts(snapshot, now);
  const head = [...headParts(picture, width), gap()];
  const rest = [
    gap(),
    ...(troubles.length === 0 ? [] : [...troubles, gap()]),
    ...workloadParts(picture, view, width),
    ...footParts({ stepMs, hasGraphs: true, hasKeys }, width),
  ];
  const graphs = graphHeight([...head, ...gpuParts(snapshot, { width, showing }), ...rest], snapshot.gpus.length, rows);
  const parts = [...head, ...gpuParts(snapshot, { width, showing, graphs }), ...rest];
  const draw = (offset: number) => fitRows(scrolled(parts, offset, width), rows, (hidden) => moreLine(hidden, hasKeys));
  const last = farthest(parts, (offset) => draw(offset).isWhole);
  return { lines: withoutDoubleGaps(draw(Math.min(view.offset, last)).lines), last };
}

/** As high as there is room for without losing anything; the first row is worth more than what is less important. */
function graphHeight(parts: readonly Part[], gpus: number, rows: number): number {
  for (let height = TALLEST_GRAPH; height >= 1; height -= 1) {
    const rank = height === 1 ? RANK.graphs : RANK.tallGraphs;
    if (gpus > 0 && heightUpTo(rank, parts) + gpus * height <= rows) return height;
  }
  return 0;
}

/** Without the first `offset` entries; those that are left are the most important now. */
function scrolled(parts: readonly Part[], offset: number, width: number): Part[] {
  if (offset === 0) return [...parts];
  const passed = new Map<string, number>();
  const kept = new Map<string, number>();
  let entry = 0;
  const shown = parts.flatMap((part): Part[] => {
    if (part.scrolls !== true || part.list === undefined) return [part];
    entry += 1;
    const counts = entry <= offset ? passed : kept;
    const index = counts.get(part.list) ?? 0;
    counts.set(part.list, index + 1);
    return entry <= offset ? [] : [{ ...part, rank: entryRank(index) }];
  });
  return shown.flatMap((part): Part[] => {
    if (part.heads === undefined) return [part];
    const hidden = passed.get(part.heads) ?? 0;
    if (!kept.has(part.heads)) return [];
    return hidden === 0 ? [part] : [{ ...part, lines: part.lines.map((line) => above(line, hidden, width)) }];
  });
}

/** The smallest offset from which on everything is shown. */
function farthest(parts: readonly Part[], shows: (offset: number) => boolean): number {
  let [low, high] = [0, Math.max(0, parts.filter(({ scrolls }) => scrolls === true).length - 1)];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (shows(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The head of a list, with how many of its entries are above the window. */
function above(head: Line, hidden: number, width: number): Line {
  return ends(cutLine(head, width - 12), [say(`↑ ${hidden} above`, "dim")], width);
}

/** "… 2 more GPUs, 3 more workloads". */
function moreLine(hidden: ReadonlyMap<string, number>, hasKeys: boolean): Line {
  const lists = [...hidden].map(([list, count]) => `${count} more ${list}${count === 1 ? "" : "s"}`);
  return [own(`… ${lists.join(", ")}`, "dim"), ...(hasKeys ? [own("  ↑↓", "dim")] : [])];
}

function withoutDoubleGaps(lines: readonly Line[]): Line[] {
  return lines.filter((line, index) => line.length > 0 || (index > 0 && lines[index - 1]?.length !== 0));
}
