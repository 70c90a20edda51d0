import { printable } from "../table.ts";
import { cut, glyphsOf, widthOf } from "../text-width.ts";

/** How a piece of text looks; names as `util.styleText` knows them. */
export type Tone = "bold" | "dim" | "inverse" | "red" | "green" | "yellow" | "cyan" | "magenta";

/** A piece of a line that looks the same throughout. */
export interface Span {
  text: string;
  tones?: readonly Tone[];
}

/** One line of the picture, without knowing how a terminal is told. */
export type Line = readonly Span[];

/** Text that may come from outside: what would steer a terminal is shown, not obeyed. */
export function say(text: string, ...tones: Tone[]): Span {
  return own(printable(text), ...tones);
}

/** Words of gpunode's own, with their spaces. */
export function own(text: string, ...tones: Tone[]): Span {
  return tones.length === 0 ? { text } : { text, tones };
}

export function blank(columns: number): Span {
  return { text: " ".repeat(Math.max(0, columns)) };
}

export function widthOfLine(line: Line): number {
  return line.reduce((sum, { text }) => sum + widthOf(text), 0);
}

/** The first `room` columns, the last of them an ellipsis where something was cut off. */
export function cutLine(line: Line, room: number): Line {
  if (widthOfLine(line) <= room) return line;
  const kept: Span[] = [];
  let left = room;
  for (const [index, piece] of line.entries()) {
    const width = widthOf(piece.text);
    const rest = line.slice(index + 1);
    if (width < left || (width === left && widthOfLine(rest) === 0)) {
      kept.push(piece);
      left -= width;
      continue;
    }
    // Something of this piece or of the next is lost: the ellipsis stands here.
    kept.push({ ...piece, text: cut(width > left ? piece.text : `${piece.text} `, left) });
    break;
  }
  return kept;
}

/** Filled with spaces to `room` columns, on the right or on the left; cut where it is longer. */
export function fill(line: Line, room: number, align: "left" | "right" = "left"): Line {
  const fitting = cutLine(line, room);
  const space = blank(room - widthOfLine(fitting));
  if (space.text === "") return fitting;
  return align === "left" ? [...fitting, space] : [space, ...fitting];
}

/** As many of the parts as fit, the first the most important; the first is cut where it is too long by itself. */
export function parts(all: readonly Line[], room: number, gap = "  "): Line {
  const line: Span[] = [];
  for (const part of all) {
    if (part.length === 0) continue;
    const next = line.length === 0 ? part : [{ text: gap }, ...part];
    if (line.length > 0 && widthOfLine(line) + widthOfLine(next) > room) break;
    line.push(...next);
  }
  return cutLine(line, room);
}

/** `left` at the left end and `right` at the right end; `right` goes where both do not fit. */
export function ends(left: Line, right: Line, room: number): Line {
  const space = room - widthOfLine(left) - widthOfLine(right);
  return space < 1 ? cutLine(left, room) : [...left, blank(space), ...right];
}

export function plain(line: Line): string {
  return line
    .map(({ text }) => text)
    .join("")
    .trimEnd();
}

/** The same picture without any emphasis but `tone`. */
export function allIn(tone: Tone, line: Line): Line {
  return [{ text: line.map(({ text }) => text).join(""), tones: [tone] }];
}

/** What gpunode draws and says, for terminals that know ASCII only; each takes the same columns. */
const IN_ASCII: Readonly<Record<string, string>> = {
  ...{ "▁": "_", "▂": ".", "▃": ":", "▄": "-", "▅": "=", "▆": "+", "▇": "*", "█": "#" },
  ...{ "━": "#", "╸": "#", "─": ".", "▲": "!", "…": "~", "×": "x", "·": "-", "→": ">", "←": "<", "↑": "^", "↓": "v" },
  ...{ "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', µ: "u", "°": " " },
};

/** The line in ASCII, as wide as before: accents go, and what has no likeness is a question mark for each column. */
export function inAscii(line: Line): Line {
  return line.map(({ text, ...look }) => ({ text: textInAscii(text), ...look }));
}

function textInAscii(text: string): string {
  // "61 °C" is "61 C".
  const simple = text.replaceAll("°C", "C ");
  if (/^[\x20-\x7e]*$/.test(simple)) return simple;
  let result = "";
  for (const glyph of glyphsOf(simple)) {
    const known = IN_ASCII[glyph.text] ?? glyph.text.normalize("NFD").replace(/\p{M}/gu, "");
    result += /^[\x20-\x7e]$/.test(known) ? known : "?".repeat(glyph.width);
  }
  return result;
}
