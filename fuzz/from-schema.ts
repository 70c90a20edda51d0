import type * as z from "zod";
import type { Draw } from "./draw.ts";
import { hostileNumber, hostileText, hostileValue } from "./hostile.ts";

/*
 * Values that fit a zod 4 schema, made by walking it. What a definition holds is read as JSON-like data (`schema.def`, as zod's own
 * documentation for library authors describes it); a type or a pattern that is not known here throws, so that a schema that grows
 * is not silently left untested.
 */
interface Def {
  type: string;
  [key: string]: unknown;
}
type Schema = z.ZodType;

/** A text for each pattern the schemas hold; made by hand, since a pattern cannot be walked. */
const PATTERNS: readonly (readonly [RegExp, (draw: Draw) => string])[] = [
  [/^\^\[A-Za-z0-9\]\[A-Za-z0-9_\.-\]\{0,62\}\$$/, (draw) => draw.of(["w", "job-1", "a.b_c", "Z".repeat(63)])],
  [/^\^\[a-z2-7\]\{26\}\$$/, (draw) => draw.of(["a", "z", "7"]).repeat(26)],
  [/^\^\[A-Za-z0-9_-\]\{43\}=\?\$$/, (draw) => draw.of(["A", "_", "9"]).repeat(43)],
  [/^\^\[\^=\\0\]\{1,255\}\$$/, (draw) => draw.of(["A", "PATH", "é".repeat(255), " "])],
  [/^\^\[\^\\0\]\*\$$/, (draw) => draw.of(["", "a", "--x=1", "\n"])],
  [/^\^SIG/, (draw) => draw.of(["SIGTERM", "SIGUSR1", "SIGRTMIN+3"])],
  [/^\^\\d\{1,3\}/, (draw) => draw.of(["8.0", "12.1", "0.0", "999.99"])],
  [/^\^\\d\+\\\.\\d\+\$$/, (draw) => draw.of(["8.0", "12.1"])],
  [/^\^\\d\{1,9\}\(/, (draw) => draw.of(["0", "12.5", "999999999"])],
  [/^\^\\\//, (draw) => draw.of(["/a", "/data", "/a b/c.d"])],
];

/** A value that `schema` takes as its input. */
export function valid(draw: Draw, schema: Schema): unknown {
  const def = schema.def as unknown as Def;
  const inner = () => valid(draw, def.innerType as Schema);
  switch (def.type) {
    case "object":
      return objectOf(draw, def.shape as Record<string, Schema>);
    case "array":
      return arrayOf(draw, schema, () => valid(draw, def.element as Schema));
    case "tuple":
      return (def.items as Schema[]).map((item) => valid(draw, item));
    case "union":
      return valid(draw, draw.of(def.options as Schema[]));
    case "intersection":
      return { ...(valid(draw, def.left as Schema) as object), ...(valid(draw, def.right as Schema) as object) };
    case "record":
      return Object.fromEntries(
        draw.list(3, () => [valid(draw, def.keyType as Schema), valid(draw, def.valueType as Schema)]),
      );
    case "enum":
      return draw.of(Object.values(def.entries as Record<string, string>));
    case "literal":
      return draw.of(def.values as unknown[]);
    case "optional":
    case "nonoptional":
    case "default":
    case "prefault":
    case "readonly":
      return inner();
    case "nullable":
      return draw.once(4) ? null : inner();
    case "lazy":
      return valid(draw, (def.getter as () => Schema)());
    case "pipe":
      return valid(draw, def.in as Schema);
    case "transform":
    case "unknown":
      return hostileValue(draw, 2);
    case "boolean":
      return draw.once(2);
    case "number":
      return numberOf(draw, schema);
    case "string":
      return stringOf(draw, schema);
    default:
      throw new Error(`no generator for a zod schema of type "${def.type}"`);
  }
}

function objectOf(draw: Draw, shape: Record<string, Schema>): object {
  const entries = Object.entries(shape).flatMap(([key, part]) => {
    const isOptional = ["optional", "default", "prefault"].includes((part.def as unknown as Def).type);
    return isOptional && !draw.once(3) ? [] : [[key, valid(draw, part)]];
  });
  return Object.fromEntries(entries);
}

function arrayOf(draw: Draw, schema: Schema, element: () => unknown): unknown[] {
  const { least, most } = boundsOf(schema);
  const list = draw.list(Math.min(3, most), element);
  while (list.length < least) list.push(element());
  return list;
}

interface Bounds {
  least: number;
  most: number;
  /** `least` itself does not fit. */
  isOpen: boolean;
  patterns: RegExp[];
}

/** What the checks of a schema add up to; lengths or values. */
function boundsOf(schema: Schema): Bounds {
  const bounds: Bounds = {
    least: Number.NEGATIVE_INFINITY,
    most: Number.POSITIVE_INFINITY,
    isOpen: false,
    patterns: [],
  };
  for (const { _zod } of schema.def.checks ?? []) {
    const def = _zod.def as { check: string; value?: number; inclusive?: boolean; minimum?: number; maximum?: number };
    if (def.check === "greater_than" || def.check === "min_length") {
      const value = def.value ?? def.minimum ?? 0;
      if (value >= bounds.least) bounds.isOpen = def.inclusive === false;
      bounds.least = Math.max(bounds.least, value);
    } else if (def.check === "less_than" || def.check === "max_length") {
      bounds.most = Math.min(bounds.most, def.value ?? def.maximum ?? 0);
    } else if ("pattern" in def && def.pattern instanceof RegExp) bounds.patterns.push(def.pattern);
  }
  return bounds;
}

function numberOf(draw: Draw, schema: Schema): number {
  const { least, most, isOpen } = boundsOf(schema);
  const isWhole = (schema as unknown as { isInt?: boolean }).isInt === true;
  const low = Math.max(least, -1e6);
  const fits = (value: number) =>
    value >= low && value <= most && !(isOpen && value === least) && (!isWhole || Number.isSafeInteger(value));
  const value = draw.any(
    () => low,
    () => Math.min(most, 2 ** 53 - 1),
    () => hostileNumber(draw),
    () => low + draw.below(1000),
    () => low + draw.below(1_000_000) / (isWhole ? 1 : 1000),
  );
  return fits(value) ? value : isOpen ? low + 1 : low;
}

function stringOf(draw: Draw, schema: Schema): string {
  if ((schema.def as { format?: string }).format === "datetime") {
    return new Date(1.7e12 + draw.below(2 ** 31)).toISOString();
  }
  const { least, most, patterns } = boundsOf(schema);
  for (const pattern of patterns) {
    const made = PATTERNS.find(([source]) => source.test(pattern.source));
    if (made === undefined) throw new Error(`no text is known for the pattern ${pattern}`);
    return made[1](draw);
  }
  const text = draw.any(
    () => "x",
    () => "GPU-1",
    () => hostileText(draw),
  );
  return text.slice(0, most).padEnd(Math.max(0, least), "x");
}
