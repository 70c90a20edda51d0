import xterm from "@xterm/headless";
import { expect, it } from "vitest";
import { frame } from "../../../src/cli/watch/frame.ts";
import { FIRST_VIEW } from "../../../src/cli/watch/keys.ts";
import { cutLine, fill, type Line, plain, say, type Tone } from "../../../src/cli/watch/line.ts";
import { createPainter } from "../../../src/cli/watch/paint.ts";
import { busyPicture, screen } from "./pictures.ts";

/** What xterm shows after these bytes, and how: "text|bold" for each place. */
class Shown {
  readonly #terminal;

  constructor(columns: number, rows: number) {
    this.#terminal = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true });
    this.#terminal.write("\x1b[?7l");
  }

  async write(bytes: string): Promise<void> {
    await new Promise<void>((resolve) => this.#terminal.write(bytes, resolve));
  }

  get lines(): string[] {
    const { active } = this.#terminal.buffer;
    return Array.from({ length: this.#terminal.rows }, (_, row) =>
      (active.getLine(row)?.translateToString(true) ?? "").trimEnd(),
    );
  }

  /** The places of a row that look like this. */
  looking(row: number, look: "isBold" | "isDim" | "isInverse"): string {
    const line = this.#terminal.buffer.active.getLine(row);
    return Array.from({ length: this.#terminal.cols }, (_, column) => line?.getCell(column))
      .map((cell) => (cell?.[look]() ? cell.getChars() : ""))
      .join("");
  }
}

/** The same numbers each time (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

it("whatever was shown before, the next picture is what is on the screen", async () => {
  const next = random(7);
  const words = ["a", "GPU 0", "▁▂▅█", "日本", "é", "  ", "━━╸──", "x".repeat(30), "👍", ""];
  const tones: Tone[] = ["bold", "dim", "inverse", "red", "cyan"];
  const pick = <T>(all: readonly T[]): T => all[Math.floor(next() * all.length)] as T;
  const painter = createPainter({ color: true });
  const shown = new Shown(40, 8);
  let lines: Line[] = [];
  for (let round = 0; round < 500; round += 1) {
    // Some lines stay, some change a little, some are new; there are more of them, or fewer.
    lines = Array.from({ length: Math.floor(next() * 9) }, (_, row): Line => {
      const before = lines[row];
      const chance = next();
      if (before !== undefined && chance < 0.5) return before;
      if (before !== undefined && chance < 0.7)
        return cutLine([...before.slice(0, -1), say(pick(words), pick(tones))], 40);
      return fill([say(pick(words)), say(pick(words), pick(tones)), say(pick(words))], Math.floor(next() * 40));
    });
    await shown.write(painter.next(lines));
    expect(shown.lines, `round ${round}`).toEqual(Array.from({ length: 8 }, (_, row) => plain(lines[row] ?? [])));
  }
});

it("a look ends where its text ends, and is not left on the screen", async () => {
  const painter = createPainter({ color: true });
  const shown = new Shown(30, 2);
  await shown.write(painter.next([[say("one", "bold"), say("two", "dim"), say("three")], [say("four", "inverse")]]));
  expect([shown.looking(0, "isBold"), shown.looking(0, "isDim"), shown.looking(1, "isInverse")]).toEqual([
    "one",
    "two",
    "four",
  ]);
  await shown.write(painter.next([[say("one"), say("two"), say("three", "bold")], []]));
  expect([shown.looking(0, "isBold"), shown.looking(0, "isDim"), shown.looking(1, "isInverse")]).toEqual([
    "three",
    "",
    "",
  ]);
});

it("without colours not one is written", () => {
  const bytes = createPainter({ color: false }).next([[say("one", "bold", "red")]]);
  expect(bytes.split("\x1b[").filter((part) => /^[\d;]+m/.test(part))).toEqual([]);
  expect(bytes).toContain("one");
});

it("nothing is written where nothing is new; all of it where the screen is not known", () => {
  const painter = createPainter({ color: true });
  const { lines } = frame(busyPicture(), FIRST_VIEW, screen(100, 40));
  const first = painter.next(lines);
  expect(painter.next(lines)).toBe("");
  painter.forget();
  expect(painter.next(lines)).toBe(first);
});

it("a second that passes costs a hundred bytes, not a window", () => {
  const painter = createPainter({ color: true });
  const picture = busyPicture();
  const at = (seconds: number) =>
    painter.next(frame({ ...picture, now: picture.now + seconds * 1000 }, FIRST_VIEW, screen(120, 40)).lines).length;
  const whole = at(0);
  // The clock, and two countdowns.
  expect(whole).toBeGreaterThan(2000);
  expect(at(1)).toBeLessThan(200);
});
