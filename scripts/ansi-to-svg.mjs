// Draws what is on a terminal as an SVG picture: node scripts/ansi-to-svg.mjs COLUMNS ROWS TITLE < BYTES > picture.svg
// BYTES is all that a program wrote to a terminal of this size, as script(1) keeps it. The picture is that after the last whole update
// (DEC mode 2026), before the program gave the terminal back.
import { buffer } from "node:stream/consumers";
import xterm from "@xterm/headless";

const [columns, rows, title] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4] ?? ""];
const [CELL, LINE, SIZE, PAD, BAR] = [8.4, 18, 14, 14, 30];
/** One look for light and dark pages: a quiet dark ground, colours that are told apart on it. */
const GROUND = "#1f2328";
const INK = "#d1d7e0";
const DIM = "#7d8590";
/** The terminal's colours 1 to 6: red, green, yellow, blue, magenta, cyan. */
const COLORS = ["", "#f47067", "#6bc46d", "#daaa3f", "#539bf5", "#b083f0", "#56b6c2"];
const EIGHTHS = "▁▂▃▄▅▆▇█";

const bytes = (await buffer(process.stdin)).toString();
const whole = bytes.slice(0, bytes.lastIndexOf("\x1b[?2026l"));
const terminal = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true });
await new Promise((done) => terminal.write(whole, done));

/** color → path; color → the rectangle that may still grow. */
const [shapes, growing] = [new Map(), new Map()];
const texts = [];
const screen = terminal.buffer.active;
const lines = Array.from({ length: rows }, (_, row) => screen.getLine(screen.viewportY + row));
const used = lines.findLastIndex((line) => line.translateToString(true).trim() !== "") + 1;
for (let row = 0; row < used; row += 1) drawRow(row, lines[row]);
for (const [color, rectangle] of growing) addShape(color, rectangle);

const [width, height] = [2 * PAD + columns * CELL, BAR + PAD + used * LINE];
const blocks = [...shapes].map(([color, path]) => `<path shape-rendering="crispEdges" fill="${color}" d="${path}"/>`);
console.log(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${round(width)} ${round(height)}" role="img" aria-label="${escaped(title)}">
<rect width="100%" height="100%" rx="8" fill="${GROUND}"/>
<g fill="${DIM}"><circle cx="18" cy="15" r="5"/><circle cx="34" cy="15" r="5"/><circle cx="50" cy="15" r="5"/></g>
<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="${SIZE}" fill="${INK}">
<text x="${round(width / 2)}" y="20" text-anchor="middle" font-size="12" fill="${DIM}">${escaped(title)}</text>
${[...blocks, ...texts].join("\n")}
</g>
</svg>`);

/** Runs of one look; blocks become shapes, so that no font leaves gaps between them. */
function drawRow(row, line) {
  let run;
  const close = () => {
    if (run !== undefined) texts.push(...textsOf(run, row));
    run = undefined;
  };
  for (let column = 0; column < columns; column += 1) {
    const cell = line.getCell(column);
    if (cell.getWidth() === 0) continue;
    const look = lookOf(cell);
    const text = cell.getChars() || " ";
    if (look.ground !== undefined) addBlock(look.ground, column, row, 0, LINE);
    const eighths = EIGHTHS.indexOf(text) + 1;
    if (eighths > 0) {
      close();
      addBlock(look.color, column, row, LINE - (LINE * eighths) / EIGHTHS.length, LINE);
      continue;
    }
    if (text === "━" || text === "╸" || text === "─") {
      close();
      addBlock(
        look.color,
        column,
        row,
        LINE / 2 - (text === "─" ? 1 : 2),
        LINE / 2 + (text === "─" ? 0 : 2),
        text === "╸" ? CELL / 2 : CELL,
      );
      continue;
    }
    const key = `${look.color} ${look.weight}`;
    if (run?.key !== key) {
      close();
      run = { key, look, column, text: "" };
    }
    run.text += text;
  }
  close();
}

function lookOf(cell) {
  const plain = cell.isFgPalette() ? (COLORS[cell.getFgColor()] ?? INK) : INK;
  const weight = cell.isBold() ? 600 : undefined;
  if (cell.isInverse()) return { color: GROUND, ground: plain, weight };
  return { color: cell.isDim() ? (plain === INK ? DIM : mixed(plain)) : plain, weight };
}

/** A third of the way to the ground. */
function mixed(color) {
  const parts = [1, 3, 5].map((at) => Math.round((13 * hex(color, at) + 7 * hex(GROUND, at)) / 20));
  return `#${parts.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}

function hex(color, at) {
  return Number.parseInt(color.slice(at, at + 2), 16);
}

/** A rectangle within a place, from `top` to `bottom`; neighbours of the same height grow together. */
function addBlock(color, column, row, top, bottom, room = CELL) {
  const [x, y, h] = [PAD + column * CELL, BAR + row * LINE + top, bottom - top];
  const before = growing.get(color);
  if (before !== undefined && before.y === y && before.h === h && Math.abs(before.x + before.w - x) < 0.01) {
    before.w += room;
    return;
  }
  growing.set(color, { x, y, w: room, h });
  if (before !== undefined) addShape(color, before);
}

function addShape(color, { x, y, w, h }) {
  shapes.set(color, `${shapes.get(color) ?? ""}M${round(x)} ${round(y)}h${round(w)}v${round(h)}h${round(-w)}z`);
}

/** Each run is made as wide as its places are, whatever font there is; split where two spaces follow each other, which not all viewers keep. */
function textsOf({ look, column, text }, row) {
  return [...text.matchAll(/\S+(?: \S+)*/g)].map(({ 0: shown, index }) => {
    const x = PAD + (column + [...text.slice(0, index)].length) * CELL;
    const attributes = [
      `x="${round(x)}" y="${round(BAR + row * LINE + 13.5)}" textLength="${round([...shown].length * CELL)}"`,
      ...(look.color === INK ? [] : [`fill="${look.color}"`]),
      ...(look.weight === undefined ? [] : [`font-weight="${look.weight}"`]),
    ];
    return `<text ${attributes.join(" ")}>${escaped(shown)}</text>`;
  });
}

function round(value) {
  return Math.round(value * 10) / 10;
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
