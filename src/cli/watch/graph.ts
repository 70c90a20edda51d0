import type { Line, Span, Tone } from "./line.ts";

/** Eighths of a row. */
const LEVELS = "▁▂▃▄▅▆▇█";

/**
 * A graph of shares of 100, one column each and `height` rows high, from the top row to the bottom one. undefined is a gap; what is there
 * and is 0 shows as a dim ground line.
 */
export function graph(values: readonly (number | undefined)[], height: number, tone: Tone): Line[] {
  return Array.from({ length: height }, (_, row) => {
    const below = (height - 1 - row) * LEVELS.length;
    return merged(values.map((value): Span => cell(value, below, height, tone)));
  });
}

function cell(value: number | undefined, below: number, height: number, tone: Tone): Span {
  if (value === undefined) return { text: " " };
  if (value <= 0) return below === 0 ? { text: "▁", tones: ["dim"] } : { text: " " };
  const eighths = Math.max(1, Math.round((Math.min(100, value) / 100) * height * LEVELS.length)) - below;
  if (eighths <= 0) return { text: " " };
  // A large area speaks for itself.
  const tones: Tone[] = height === 1 ? [tone] : [tone, "dim"];
  return { text: LEVELS[Math.min(LEVELS.length, eighths) - 1] ?? " ", tones };
}

/** How much of something there is: `share` from 0 to 1 over `room` columns. */
export function bar(share: number, room: number, tone: Tone): Line {
  const halves = Math.round(Math.max(0, Math.min(1, share)) * room * 2);
  const [full, half] = [Math.floor(halves / 2), halves % 2];
  return merged([
    { text: "━".repeat(full) + "╸".repeat(half), tones: [tone] },
    { text: "─".repeat(Math.max(0, room - full - half)), tones: ["dim"] },
  ]);
}

/** Neighbours that look the same in one piece. */
function merged(spans: readonly Span[]): Line {
  const line: Span[] = [];
  for (const span of spans) {
    if (span.text === "") continue;
    const last = line.at(-1);
    if (last !== undefined && last.tones?.join() === span.tones?.join()) last.text += span.text;
    else line.push({ ...span });
  }
  return line;
}
