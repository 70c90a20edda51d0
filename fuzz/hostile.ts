import type { Draw } from "./draw.ts";

/** Texts that have broken programs before: empty, long, cut characters, control characters, names with a meaning to JavaScript. */
const TEXTS = [
  "",
  "0",
  " ",
  "\0",
  "__proto__",
  "constructor",
  "toString",
  "null",
  "NaN",
  "-1",
  "1e400",
  "0x10",
  "999999999999999999999",
  "\ud800",
  "\u202e\u0007\x1b[31m",
  "é\u0301日本🜁",
  "\ufeff",
  "%zz",
  "%2e%2e/../..",
  "//",
  "a\r\nb: c",
  '"\\',
  "$(x)`x`",
  "[N/A]",
  "GPU is lost",
  "<x/>",
  "]]>",
  "&#0;&lt;",
];

const NUMBERS = [
  0,
  -0,
  1,
  -1,
  0.5,
  100.0001,
  101,
  2 ** 31,
  2 ** 32,
  2 ** 53 - 1,
  2 ** 53,
  -(2 ** 53),
  1e15,
  8.64e15,
  8.64e15 + 1,
  1e18,
  1e300,
  1e-300,
  Number.MAX_VALUE,
];

export function hostileText(draw: Draw): string {
  if (draw.once(200)) return draw.of(["x", "\0", "é", '"', "-", "a=", "1 ", "\t\n"]).repeat(1 << draw.below(20));
  if (draw.once(3))
    return draw
      .list(12, () =>
        String.fromCharCode(
          draw.any(
            () => 32 + draw.below(95),
            () => draw.below(65_536),
          ),
        ),
      )
      .join("");
  return draw.of(TEXTS);
}

export function hostileNumber(draw: Draw): number {
  return draw.any(
    () => draw.of(NUMBERS),
    () => draw.below(1000),
    () => draw.below(2 ** 32) / 1000,
    () => -draw.below(2 ** 31),
  );
}

/** Any JSON value, deep ones now and then. */
export function hostileValue(draw: Draw, depth = 0): unknown {
  if (depth === 0 && draw.once(500)) return nested(draw);
  return draw.any<unknown>(
    () => null,
    () => draw.once(2),
    () => hostileNumber(draw),
    () => hostileText(draw),
    () => (depth > 3 ? [] : draw.list(4, () => hostileValue(draw, depth + 1))),
    () =>
      depth > 3
        ? {}
        : Object.fromEntries(draw.list(4, () => [hostileText(draw).slice(0, 2000), hostileValue(draw, depth + 1)])),
  );
}

function nested(draw: Draw): unknown {
  let value: unknown = hostileNumber(draw);
  for (let level = draw.below(3000); level > 0; level -= 1) value = draw.made.length % 2 === 0 ? [value] : { a: value };
  return value;
}

/** A value with some of its parts replaced, left out, doubled or renamed. */
export function mutated(draw: Draw, value: unknown, times = 1 + draw.below(3)): unknown {
  let result = value;
  for (let time = 0; time < times; time += 1) result = mutatedOnce(draw, result);
  return result;
}

function mutatedOnce(draw: Draw, value: unknown): unknown {
  if (Array.isArray(value) && value.length > 0 && !draw.once(6)) {
    const at = draw.below(value.length);
    return draw.any(
      () => value.with(at, mutatedOnce(draw, value[at])),
      () => value.toSpliced(at, 1),
      () => [...value, value[at]],
    );
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value) && !draw.once(8)) {
    const entries = Object.entries(value);
    if (entries.length === 0) return { [hostileText(draw)]: hostileValue(draw, 1) };
    const at = draw.below(entries.length);
    const [key, part] = entries[at] ?? ["", undefined];
    const changed = draw.any(
      () => entries.with(at, [key, mutatedOnce(draw, part)]),
      () => entries.with(at, [key, mutatedOnce(draw, part)]),
      () => entries.toSpliced(at, 1),
      () => entries.with(at, [hostileText(draw), part]),
      () => [...entries, [hostileText(draw), hostileValue(draw, 1)] as [string, unknown]],
    );
    return Object.fromEntries(changed);
  }
  if (typeof value === "number" && !draw.once(4)) return hostileNumber(draw);
  if (typeof value === "string" && !draw.once(4))
    return draw.any(
      () => hostileText(draw),
      () => mutatedText(draw, value),
    );
  return hostileValue(draw, 1);
}

/** Text as files and programs have it, with parts cut, repeated, swapped and replaced. `words` are what the format has a meaning for. */
export function mutatedText(draw: Draw, text: string, words: readonly string[] = []): string {
  let result = text;
  for (let left = 1 + draw.below(4); left > 0; left -= 1) {
    const at = draw.below(result.length + 1);
    const length = draw.any(
      () => 1,
      () => draw.below(8),
      () => draw.below(200),
      () => draw.below(result.length + 1),
    );
    const [before, part, after] = [result.slice(0, at), result.slice(at, at + length), result.slice(at + length)];
    result = draw.any(
      () => before + after,
      () => before + hostileText(draw) + after,
      () => before + String(hostileNumber(draw)) + after,
      () => before + part.repeat(Math.min(1 + draw.below(20), Math.ceil(1e6 / (part.length + 1)))) + after,
      () => before + after + part,
      () => before,
      () => (words.length === 0 ? before + after : before + draw.of(words) + after),
    );
  }
  return result;
}

/** Lines left out, doubled or swapped, or single cells of them replaced. */
export function mutatedLines(draw: Draw, text: string, cells: RegExp, words: readonly string[] = []): string {
  const lines = text.split("\n");
  for (let left = 1 + draw.below(3); left > 0; left -= 1) {
    const at = draw.below(lines.length);
    const line = lines[at] ?? "";
    draw.any(
      () => {
        const parts = line.split(cells);
        const cell = draw.below(parts.length);
        const value =
          words.length > 0 && draw.once(2)
            ? draw.of(words)
            : draw.any(
                () => hostileText(draw),
                () => String(hostileNumber(draw)),
              );
        lines[at] = line.replace(parts[cell] ?? "", () => value);
      },
      () => lines.splice(at, 1),
      () => lines.splice(at, 0, line),
      () => lines.push(line),
    );
  }
  return lines.join("\n");
}
