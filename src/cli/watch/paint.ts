import { inspect } from "node:util";
import { glyphsOf } from "../text-width.ts";
import type { Line, Tone } from "./line.ts";

/** One place of the terminal, two columns wide where its glyph is. */
interface Cell {
  text: string;
  width: number;
  /** Parameters of "select graphic rendition": "1;32"; "" for none. */
  look: string;
}

/** Begin and end of an update that terminals which know it (DEC mode 2026) show at once; others skip it. */
const BEGIN = "\x1b[?2026h";
const END = "\x1b[?2026l";
/** Unchanged columns between two changes are written again rather than jumped over where they are fewer than a jump has bytes. */
const JUMP_COLUMNS = 8;

/** What is on the screen, and how to tell the terminal what is different in the next picture. */
export interface Painter {
  /** Bytes to write; "" where nothing is different. */
  next(lines: readonly Line[]): string;
  /** What is on the screen is not known any more: the next picture is written whole. */
  forget(): void;
}

export function createPainter({ color }: { color: boolean }): Painter {
  let shown: Cell[][] | undefined;
  return {
    next(lines) {
      const wanted = lines.map((line) => cellsOf(line, color));
      const rows = wanted.map((cells, row) => changes(shown?.[row] ?? [], cells, row));
      const clear = shown === undefined ? "\x1b[m\x1b[2J" : "";
      const emptied = (shown ?? [])
        .slice(wanted.length)
        .map((cells, index) => changes(cells, [], wanted.length + index));
      shown = wanted;
      const body = [clear, ...rows, ...emptied].join("");
      return body === "" ? "" : `${BEGIN}${body}${END}`;
    },
    forget() {
      shown = undefined;
    },
  };
}

function cellsOf(line: Line, color: boolean): Cell[] {
  const cells: Cell[] = [];
  for (const { text, tones = [] } of line) {
    const look = color ? lookOf(tones) : "";
    for (const glyph of glyphsOf(text)) {
      const last = cells.at(-1);
      // What takes no column belongs to the glyph before it.
      if (glyph.width === 0 && last !== undefined) last.text += glyph.text;
      else cells.push({ ...glyph, look });
    }
  }
  while (cells.at(-1)?.text === " " && cells.at(-1)?.look === "") cells.pop();
  return cells;
}

function lookOf(tones: readonly Tone[]): string {
  return tones.map((tone) => inspect.colors[tone]?.[0] ?? 0).join(";");
}

/** Turns one row into another. */
function changes(before: readonly Cell[], after: readonly Cell[], row: number): string {
  const ranges = changedRanges(before, after);
  const isShorter = after.length < before.length;
  if (ranges.length === 0 && !isShorter) return "";
  // How wide 日本 or 👍 is, terminals do not agree on: such a row is written whole, so that each is right by its own measure.
  if (![...before, ...after].every(isSimple)) return `${at(row, 0)}\x1b[2K${textOf(after)}`;
  const written = ranges.map(([from, to]) => at(row, from) + textOf(after.slice(from, to))).join("");
  return isShorter ? `${written}${at(row, after.length)}\x1b[K` : written;
}

function isSimple({ text, width }: Cell): boolean {
  return width === 1 && text.length === 1;
}

/** The cells with what turns their looks on and off. */
function textOf(cells: readonly Cell[]): string {
  let [bytes, look] = ["", ""];
  for (const cell of cells) {
    if (cell.look !== look) bytes += cell.look === "" ? "\x1b[m" : `\x1b[${look === "" ? "" : "0;"}${cell.look}m`;
    look = cell.look;
    bytes += cell.text;
  }
  return look === "" ? bytes : `${bytes}\x1b[m`;
}

/** Ranges of `after` to write, from inclusive to exclusive. */
function changedRanges(before: readonly Cell[], after: readonly Cell[]): [number, number][] {
  const ranges: [number, number][] = [];
  for (const [index, cell] of after.entries()) {
    const old = before[index];
    if (old?.text === cell.text && old.look === cell.look) continue;
    const last = ranges.at(-1);
    if (last !== undefined && index - last[1] <= JUMP_COLUMNS) last[1] = index + 1;
    else ranges.push([index, index + 1]);
  }
  return ranges;
}

/** Places the cursor; counted from 0 here, from 1 there. */
function at(row: number, column: number): string {
  return column === 0 ? `\x1b[${row + 1}H` : `\x1b[${row + 1};${column + 1}H`;
}
