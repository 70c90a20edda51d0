import { styleText } from "node:util";
import { cut, widthOf } from "./text-width.ts";

export type Style = Parameters<typeof styleText>[0];

/** A cell; a plain string is one without a style. */
export type Cell = string | { text: string; style: Style };

export interface Column {
  title: string;
  align?: "left" | "right";
  /** Gives way where the terminal is narrow. */
  shrinks?: true;
}

export interface TableOptions {
  /** Columns of a line; without it nothing is cut. */
  width?: number;
  color?: boolean;
}

const GAP = "  ";
/** A shrunk column is still this wide. */
const MIN_WIDTH = 8;

/** Rows under their titles, aligned, cut to the terminal's width at the columns that may shrink. Ends with a newline. */
export function renderTable(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  options: TableOptions,
): string {
  const widths = fitted(
    columns,
    columns.map((column, index) =>
      Math.max(widthOf(column.title), ...rows.map((row) => widthOf(printable(textOf(row[index] ?? ""))))),
    ),
    options.width,
  );
  const line = (cells: readonly Cell[]) =>
    cells
      .map((cell, index) => {
        const room = widths[index] ?? 0;
        const text = cut(printable(textOf(cell)), room);
        const space = " ".repeat(Math.max(0, room - widthOf(text)));
        const styled = typeof cell === "string" ? text : paint(text, cell.style, options);
        return columns[index]?.align === "right" ? space + styled : styled + space;
      })
      .join(GAP)
      .trimEnd();
  const head = columns.map(({ title }) => ({ text: title, style: "bold" as const }));
  return `${[head, ...rows].map(line).join("\n")}\n`;
}

/** Colours `text` where the options say that colours show. */
export function paint(text: string, style: Style, { color }: TableOptions): string {
  return color === true ? styleText(style, text, { validateStream: false }) : text;
}

/** What a stream can show. Nothing is cut and nothing coloured on the way into a pipe. */
export function optionsOf(stream: NodeJS.WriteStream): TableOptions {
  if (!stream.isTTY) return {};
  return { width: stream.columns, color: stream.hasColors?.() === true && !process.env.NO_COLOR };
}

function textOf(cell: Cell): string {
  return typeof cell === "string" ? cell : cell.text;
}

function fitted(columns: readonly Column[], natural: number[], available: number | undefined): number[] {
  const widths = [...natural];
  if (available === undefined) return widths;
  const gaps = GAP.length * (columns.length - 1);
  let excess = widths.reduce((sum, value) => sum + value, gaps) - available;
  while (excess > 0) {
    const candidates = columns.flatMap(({ shrinks }, index) =>
      shrinks && (widths[index] ?? 0) > MIN_WIDTH ? [{ index, width: widths[index] ?? 0 }] : [],
    );
    const widest = candidates.sort((a, b) => b.width - a.width)[0];
    if (widest === undefined) break;
    widths[widest.index] = widest.width - 1;
    excess -= 1;
  }
  return widths;
}

/** What others wrote (process names, messages) must not steer the owner's terminal. */
export function printable(text: string): string {
  return text.replace(/\s+/g, " ").replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "�");
}
