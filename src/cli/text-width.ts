import stringWidth from "string-width";

/** Printable ASCII, the rest of Latin, and what gpunode itself draws with: one column each, nothing that joins with what follows. */
const ONE_COLUMN_EACH = /^[\x20-\x7e\u00a1-\u00ac\u00ae-\u02ff\u2010-\u2027\u2190-\u21ff\u2500-\u259f\u25b2\u25cf]*$/;
/** Made when it is first wanted: it loads ICU. */
let segmenter: Intl.Segmenter | undefined;

/** Columns of a terminal that `text` takes: two for each of 日本, none for a combining accent. Without control characters in it. */
export function widthOf(text: string): number {
  return ONE_COLUMN_EACH.test(text) ? text.length : stringWidth(text, { countAnsiEscapeCodes: true });
}

/** What a terminal puts in one place, letter by letter with their accents; each with its columns. */
export function* glyphsOf(text: string): Generator<{ text: string; width: number }> {
  if (ONE_COLUMN_EACH.test(text)) for (const character of text) yield { text: character, width: 1 };
  else {
    segmenter ??= new Intl.Segmenter(undefined, { granularity: "grapheme" });
    for (const { segment } of segmenter.segment(text)) yield { text: segment, width: widthOf(segment) };
  }
}

/** Shortens to `room` columns, the last of them `ellipsis` (one column wide). */
export function cut(text: string, room: number, ellipsis = "…"): string {
  if (widthOf(text) <= room) return text;
  if (room < 1) return "";
  let kept = "";
  let used = 0;
  for (const glyph of glyphsOf(text)) {
    if (used + glyph.width > room - 1) break;
    kept += glyph.text;
    used += glyph.width;
  }
  return kept + ellipsis;
}
