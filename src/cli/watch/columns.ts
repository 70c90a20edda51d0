import { widthOf } from "../text-width.ts";
import { blank, fill, type Line, type Span, say, widthOfLine } from "./line.ts";

export interface WatchColumn {
  title: string;
  align?: "right";
  /** Where there is no room the column with the lowest number gives way first, and goes first. */
  keep: number;
  /** Columns it may be cut to; without it, it is as wide as what is in it. */
  least?: number;
  /** Takes what is left of the line. One of a table may. */
  grows?: true;
}

/** A cell, or one that is drawn to the room it gets. */
export type WatchCell = Line | { width: number; draw(room: number): Line };

const GAP = 2;

/** Rows under their titles, in `width` columns: what can shrink does, then columns go. Columns with nothing in them are not shown. */
export function layOut(
  columns: readonly WatchColumn[],
  rows: readonly (readonly WatchCell[])[],
  width: number,
): { head: Line; rows: Line[] } {
  const natural = columns.map(({ title }, index) => {
    const widths = rows.map((row) => naturalWidth(row[index] ?? []));
    const widest = Math.max(0, ...widths);
    return widest === 0 ? 0 : Math.max(widthOf(title), widest);
  });
  let shown = columns.flatMap((_, index) => (natural[index] === 0 ? [] : [index]));
  let widths = fitted(shown, { columns, natural, width });
  while (widths === undefined && shown.length > 1) {
    const lowest = shown.reduce((least, index) => (keepOf(columns, index) < keepOf(columns, least) ? index : least));
    shown = shown.filter((index) => index !== lowest);
    widths = fitted(shown, { columns, natural, width });
  }
  const line = (cells: readonly WatchCell[]): Line =>
    shown.flatMap((index, position): Span[] => {
      const room = widths?.[position] ?? width;
      const cell = cells[index] ?? [];
      const content = isDrawn(cell) ? cell.draw(room) : cell;
      return [...(position === 0 ? [] : [blank(GAP)]), ...fill(content, room, columns[index]?.align)];
    });
  return { head: line(columns.map(({ title }) => [say(title, "dim")])), rows: rows.map(line) };
}

/** A width for each column of `shown`; undefined where they do not fit at their least. */
function fitted(
  shown: readonly number[],
  { columns, natural, width }: { columns: readonly WatchColumn[]; natural: readonly number[]; width: number },
): number[] | undefined {
  const widths = shown.map((index) => natural[index] ?? 0);
  let excess = widths.reduce((sum, value) => sum + value, GAP * (shown.length - 1)) - width;
  // What matters least gives way first.
  const positions = [...shown.keys()].sort((a, b) => keepOf(columns, shown[a]) - keepOf(columns, shown[b]));
  for (const position of positions) {
    const own = widths[position] ?? 0;
    const given = Math.min(Math.max(0, excess), Math.max(0, own - (columns[shown[position] ?? 0]?.least ?? own)));
    widths[position] = own - given;
    excess -= given;
  }
  if (excess > 0) return undefined;
  const growing = shown.findIndex((index) => columns[index]?.grows === true);
  if (growing >= 0) widths[growing] = (widths[growing] ?? 0) - excess;
  return widths;
}

function keepOf(columns: readonly WatchColumn[], index = 0): number {
  return columns[index]?.keep ?? 0;
}

function isDrawn(cell: WatchCell): cell is Exclude<WatchCell, Line> {
  return "draw" in cell;
}

function naturalWidth(cell: WatchCell): number {
  return isDrawn(cell) ? cell.width : widthOfLine(cell);
}
