import { type CsvFormat, type QueryKind, queryKinds } from "./csv.ts";
import type { CommandKind } from "./faults.ts";

/** What was asked for. */
export type Request = { readonly ids?: readonly string[]; readonly loopMs?: number } & (
  | { readonly kind: "table" | "list" | "xml" | "topology" | "nvlink" | "mig" | "version" | "help" }
  | { readonly kind: "help-query"; readonly query: QueryKind }
  | {
      readonly kind: "query";
      readonly query: QueryKind;
      readonly fields: readonly string[];
      readonly format: CsvFormat;
    }
);

/** What nvidia-smi says to a command line it does not take. */
export interface Refusal {
  readonly refusal: string;
  readonly exitCode: number;
}

const refused = (refusal: string, exitCode = 255): Refusal => ({ refusal, exitCode });

/** Reads nvidia-smi's command line: options as `--name=value`, `--name value` or `-n value`. */
export function parseCommand(argv: readonly string[]): Request | Refusal {
  const [first, second] = argv;
  if (first === "topo" && (second === "-m" || second === "--matrix")) return { kind: "topology" };
  if (first === "nvlink" && (second === "-s" || second === "--status")) return { kind: "nvlink" };
  if (first === "mig" && (second === "-lgi" || second === "--list-gpu-instances")) return { kind: "mig" };
  return parseOptions(argv);
}

interface Options {
  ids?: string[];
  loopMs?: number;
  format: CsvFormat;
  query?: { readonly kind: QueryKind; readonly fields: readonly string[] };
  helpQuery?: QueryKind;
  flags: Set<"list" | "query" | "xml" | "version" | "help">;
}

const flagNames: Readonly<Record<string, "list" | "query" | "xml" | "version" | "help">> = {
  "-L": "list",
  "--list-gpus": "list",
  "-q": "query",
  "--query": "query",
  "-x": "xml",
  "--xml-format": "xml",
  "--version": "version",
  "-h": "help",
  "--help": "help",
};

function parseOptions(argv: readonly string[]): Request | Refusal {
  const options: Options = { format: { header: true, units: true }, flags: new Set() };
  for (let at = 0; at < argv.length; at++) {
    const argument = argv[at] ?? "";
    const [name = "", inline] = splitOnce(argument, "=");
    const flag = flagNames[name];
    if (flag !== undefined) {
      options.flags.add(flag);
      continue;
    }
    const help = queryKinds.find((kind) => name === `--help-query-${kind}`);
    if (help !== undefined) {
      options.helpQuery = help;
      continue;
    }
    const take = takers.find(({ names }) => names.includes(name));
    if (take === undefined)
      return refused(`ERROR: Option ${argument} is not recognized. Please run 'nvidia-smi -h'.\n\n`);
    // A loop without a number is five seconds.
    const optional = take.optional === true && !/^\d/.test(argv[at + 1] ?? "");
    const value = inline ?? (optional ? "" : argv[++at]);
    if (value === undefined)
      return refused(`ERROR: Option ${name} requires an argument. Please run 'nvidia-smi -h'.\n\n`);
    const wrong = take.apply(options, value);
    if (wrong !== undefined) return wrong;
  }
  return requestOf(options);
}

function splitOnce(text: string, separator: string): [string, string?] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}

interface Taker {
  readonly names: readonly string[];
  readonly optional?: boolean;
  readonly apply: (options: Options, value: string) => Refusal | undefined;
}

const takers: readonly Taker[] = [
  {
    names: ["-i", "--id"],
    apply: (options, value) => {
      options.ids = value.split(",");
      return undefined;
    },
  },
  {
    names: ["-l", "--loop"],
    optional: true,
    apply: (options, value) => setLoop(options, value === "" ? "5" : value, 1000),
  },
  { names: ["-lms", "--loop-ms"], apply: (options, value) => setLoop(options, value, 1) },
  { names: ["--format"], apply: setFormat },
  ...queryKinds.map(
    (kind): Taker => ({
      names: [`--query-${kind}`],
      apply: (options, value) => {
        options.query = { kind, fields: value.split(",").map((field) => field.trim()) };
        return undefined;
      },
    }),
  ),
];

function setLoop(options: Options, value: string, unitMs: number): Refusal | undefined {
  const count = Number(value);
  if (!(Number.isInteger(count) && count >= 1)) return refused(`ERROR: Invalid loop interval "${value}".\n\n`);
  options.loopMs = count * unitMs;
  return undefined;
}

function setFormat(options: Options, value: string): Refusal | undefined {
  const words = value.split(",").map((word) => word.trim());
  const unknown = words.find((word) => !["csv", "noheader", "nounits"].includes(word));
  if (unknown !== undefined)
    return refused(`ERROR: Option --format=${unknown} is not recognized. Please run 'nvidia-smi -h'.\n\n`);
  options.format = { header: !words.includes("noheader"), units: !words.includes("nounits") };
  return undefined;
}

function requestOf({ flags, ids, loopMs, query, helpQuery, format }: Options): Request | Refusal {
  const common = { ...(ids !== undefined && { ids }), ...(loopMs !== undefined && { loopMs }) };
  if (flags.has("help")) return { kind: "help" };
  if (flags.has("version")) return { kind: "version" };
  if (helpQuery !== undefined) return { kind: "help-query", query: helpQuery };
  if (query !== undefined) return { ...common, kind: "query", query: query.kind, fields: query.fields, format };
  if (flags.has("query")) {
    if (flags.has("xml")) return { ...common, kind: "xml" };
    return refused("nvidia-smi-sim: -q without -x is not simulated; ask for -q -x\n");
  }
  if (flags.has("list")) return { ...common, kind: "list" };
  return { ...common, kind: "table" };
}

/** Under which name a fault's `on` finds this command. */
export function commandKindOf(request: Request): CommandKind {
  switch (request.kind) {
    case "query":
      return request.query === "compute-apps" ? "apps" : request.loopMs === undefined ? "query" : "stream";
    case "help":
    case "help-query":
      return "help";
    case "nvlink":
    case "mig":
      return "topology";
    default:
      return request.kind;
  }
}
