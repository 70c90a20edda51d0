/** A family of metrics as Prometheus knows it. */
export interface Description {
  name: string;
  type: "gauge" | "counter" | "histogram";
  /** One sentence or two, with the unit where the name does not tell it. */
  help: string;
  /** Names of the labels its series may carry. */
  labels: readonly string[];
}

/** One series' value now. */
export interface Sample {
  labels: Readonly<Record<string, string>>;
  value: number;
  /** Of a histogram: which of its parts. */
  part?: "_bucket" | "_sum" | "_count";
}

/** Media type of the text exposition format that every Prometheus reads (prometheus.io/docs/instrumenting/exposition_formats). */
export const TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8";

/** A label's value is cut to this many characters: what others choose (names of programs) shall not fill a database. */
const VALUE_MAX = 512;

/**
 * The families in the text exposition format 0.0.4, in the order given, without times. What is not known has no line: a family without
 * samples is left out, a value that is no number too. Of two series with the same labels the first counts, as a scrape with both would be
 * refused as a whole.
 */
export function exposition(families: Iterable<readonly [Description, readonly Sample[]]>): string {
  const parts: string[] = [];
  // The same labels stand at many series: each is written once.
  const written = new Map<Sample["labels"], string>();
  const textOf = (labels: Sample["labels"]) => {
    const text = written.get(labels) ?? labelsOf(labels);
    written.set(labels, text);
    return text;
  };
  for (const [{ name, type, help }, samples] of families) {
    const told = new Set<string>();
    for (const { labels, value, part = "" } of samples) {
      if (Number.isNaN(value)) continue;
      const text = textOf(labels);
      const key = part === "" ? text : part + text;
      if (told.has(key)) continue;
      if (told.size === 0) parts.push(`# HELP ${name} ${escapedHelp(help)}\n# TYPE ${name} ${type}\n`);
      told.add(key);
      parts.push(name, part, text, " ", numberOf(value), "\n");
    }
  }
  return parts.join("");
}

function labelsOf(labels: Sample["labels"]): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapedValue(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function numberOf(value: number): string {
  if (Number.isFinite(value)) return String(value);
  return value > 0 ? "+Inf" : "-Inf";
}

/** What Prometheus' own parser, or a terminal that shows the text, would stumble over. A line feed has an escape of its own. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what it takes out
const UNPRINTABLE = /[\x00-\x09\x0b-\x1f\x7f-\x9f]/g;
const ESCAPED: Readonly<Record<string, string>> = { "\\": "\\\\", '"': '\\"', "\n": "\\n" };

function escapedValue(value: string): string {
  // Cut between characters, not within one of two code units.
  const short = value.length <= VALUE_MAX ? value : Array.from(value.slice(0, VALUE_MAX)).slice(0, -1).join("");
  return short
    .toWellFormed()
    .replace(UNPRINTABLE, "\ufffd")
    .replace(/[\\"\n]/g, (character) => ESCAPED[character] ?? "");
}

function escapedHelp(help: string): string {
  return help.replace(/[\\\n]/g, (character) => ESCAPED[character] ?? "");
}
