/** A family as read from the text format. */
export interface ParsedFamily {
  type: string | undefined;
  help: string | undefined;
  /** By series: the name with its labels in alphabetical order. */
  series: Map<string, { name: string; labels: Record<string, string>; value: number }>;
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*/;

/**
 * Reads the text exposition format 0.0.4 as its description has it (prometheus.io/docs/instrumenting/exposition_formats), and no more
 * leniently. Throws on a line that is none, a series that comes twice, a family that is not in one piece.
 */
export function parseExposition(text: string): Map<string, ParsedFamily> {
  const families = new Map<string, ParsedFamily>();
  if (text !== "" && !text.endsWith("\n")) throw new Error("the last line has no end");
  let current: string | undefined;
  const enter = (name: string): ParsedFamily => {
    const known = families.get(name);
    if (known !== undefined && current !== name) throw new Error(`${name} is not in one piece`);
    current = name;
    const family = known ?? { type: undefined, help: undefined, series: new Map() };
    families.set(name, family);
    return family;
  };
  for (const line of text.split("\n").slice(0, -1)) {
    const [, kind, of = "", rest = ""] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    if (kind !== undefined) {
      const family = enter(of);
      const key = kind === "HELP" ? "help" : "type";
      if (family[key] !== undefined) throw new Error(`${of} has two lines ${kind}`);
      if (family.series.size > 0) throw new Error(`${kind} of ${of} comes after its series`);
      family[key] = rest;
      continue;
    }
    const { name, labels, value } = parseSeries(line);
    const base =
      /_(bucket|sum|count)$/.test(name) && families.get(name.replace(/_(bucket|sum|count)$/, ""))?.type === "histogram"
        ? name.replace(/_(bucket|sum|count)$/, "")
        : name;
    const family = enter(base);
    const key = seriesKey(name, labels);
    if (family.series.has(key)) throw new Error(`${key} comes twice`);
    family.series.set(key, { name, labels, value });
  }
  return families;
}

export function seriesKey(name: string, labels: Record<string, string>): string {
  const pairs = Object.keys(labels)
    .sort()
    .map((label) => `${label}=${JSON.stringify(labels[label])}`);
  return `${name}{${pairs.join(",")}}`;
}

function parseSeries(line: string): { name: string; labels: Record<string, string>; value: number } {
  const name = NAME.exec(line)?.[0];
  if (name === undefined) throw new Error(`no series: ${JSON.stringify(line.slice(0, 200))}`);
  const labels: Record<string, string> = {};
  let at = name.length;
  if (line[at] === "{") {
    at += 1;
    while (line[at] !== "}") {
      const [whole, label = "", raw = ""] = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/.exec(line.slice(at)) ?? [];
      if (whole === undefined) throw new Error(`no label at ${at}: ${JSON.stringify(line.slice(0, 400))}`);
      if (Object.hasOwn(labels, label)) throw new Error(`${label} comes twice: ${line}`);
      if (/\\[^\\n"]/.test(raw.replaceAll("\\\\", ""))) throw new Error(`no such escape: ${JSON.stringify(raw)}`);
      labels[label] = raw.replace(/\\(.)/g, (_, character: string) => (character === "n" ? "\n" : character));
      at += whole.length;
      if (line[at] === ",") at += 1;
    }
    at += 1;
  }
  const [, number = ""] = /^ (\S+)$/.exec(line.slice(at)) ?? [];
  const value =
    number === "+Inf" ? Number.POSITIVE_INFINITY : number === "-Inf" ? Number.NEGATIVE_INFINITY : Number(number);
  if (number === "" || Number.isNaN(value)) throw new Error(`no value: ${JSON.stringify(line.slice(0, 400))}`);
  return { name, labels, value };
}
