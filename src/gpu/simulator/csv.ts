import type { Driver } from "./driver.ts";
import { handleFailureLine } from "./faults.ts";
import { type Field, fieldsOf } from "./fields.ts";
import type { GpuState, RunningProcess } from "./state.ts";
import { isWord, type Values, valuesOf, words } from "./values.ts";

/** `--format=`: `csv` is the only kind there is, and what is printed where none is given. */
export interface CsvFormat {
  readonly header: boolean;
  readonly units: boolean;
}

/** A query that was understood: its columns, and the rows for one moment. */
export interface CsvQuery {
  readonly header: string;
  rows(states: readonly GpuState[], context: RowContext): string[];
}

export interface RowContext {
  readonly driver: Driver;
  readonly now: Date;
  /** How many GPUs the machine has. */
  readonly attached: number;
  /** Indexes of GPUs lost after this process began: of those nothing is known but the time. */
  readonly lostSinceStart: ReadonlySet<number>;
}

export const queryKinds = ["gpu", "compute-apps", "remapped-rows"] as const;
export type QueryKind = (typeof queryKinds)[number];

/** The first name that is not a property of the query, or the query. */
export function csvQuery(
  kind: QueryKind,
  names: readonly string[],
  { driver, format }: { readonly driver: Driver; readonly format: CsvFormat },
): CsvQuery | { readonly unknown: string } {
  const known = knownFields(kind, driver);
  const fields: Field[] = [];
  for (const name of names) {
    const field = known.find((candidate) => candidate.name === name || candidate.alias === name);
    if (field === undefined) return { unknown: name };
    fields.push(field);
  }
  const cells = (values: Values) => fields.map((field) => cell(field, values, format)).join(", ");
  return {
    header: fields.map((field) => (field.unit === undefined ? field.name : `${field.name} [${field.unit}]`)).join(", "),
    rows: (states, context) =>
      states.flatMap((state) => {
        if (state.missing === "handle") return [handleFailureLine(driver, state.gpu)];
        return rowValues(kind, state, context, fields).map(cells);
      }),
  };
}

/** Text for `Field "x" is not a valid field to query.` */
export function unknownField(name: string): string {
  return `Field "${name}" is not a valid field to query.\n\n`;
}

/** `--help-query-…`: real names in the real order and layout; the sentences are this project's own. */
export function queryHelp(kind: QueryKind, driver: Driver): string {
  const entries = knownFields(kind, driver).map((field) => {
    const names = field.alias === undefined ? `"${field.name}"` : `"${field.name}" or "${field.alias}"`;
    const unit = field.unit === undefined ? "" : `, in ${field.unit}`;
    return `${names}\nSimulated value of ${field.name}${unit}.\n\n`;
  });
  return `List of valid properties to query for the switch "--query-${kind}":\n\n${entries.join("")}`;
}

function knownFields(kind: QueryKind, driver: Driver): readonly Field[] {
  const gpuColumns = ["timestamp", "gpu_name", "gpu_bus_id", "gpu_serial", "gpu_uuid"].map((name) =>
    column(name, { key: gpuKeys[name] ?? name }),
  );
  switch (kind) {
    case "gpu":
      return fieldsOf(driver);
    case "compute-apps":
      return [
        ...gpuColumns,
        column("pid", {}),
        column("process_name", { alias: "name" }),
        column("used_gpu_memory", { alias: "used_memory", unit: "MiB" }),
      ];
    case "remapped-rows":
      return [
        ...gpuColumns,
        ...["correctable", "uncorrectable", "pending", "failure"].map((name) => column(`remapped_rows.${name}`, {})),
        ...["max", "high", "partial", "low", "none"].map((name) => column(`remapped_rows.histogram.${name}`, {})),
      ];
    default:
      return kind satisfies never;
  }
}

const gpuKeys: Readonly<Record<string, string>> = {
  gpu_name: "name",
  gpu_bus_id: "pci.bus_id",
  gpu_serial: "serial",
  gpu_uuid: "uuid",
};

function column(
  name: string,
  given: { readonly key?: string; readonly alias?: string; readonly unit?: string },
): Field {
  return { name, key: name, bare: false, ...given };
}

function rowValues(kind: QueryKind, state: GpuState, context: RowContext, fields: readonly Field[]): Values[] {
  const base: Values = {
    ...valuesOf(state, context.driver, { gpuCount: context.attached }),
    timestamp: csvTime(context.now),
  };
  if (context.lostSinceStart.has(state.gpu.index)) {
    if (kind === "compute-apps") return [];
    const lost = fields.filter((field) => field.key !== "timestamp").map((field) => [field.key, words.lost]);
    return [{ ...base, ...Object.fromEntries(lost) }];
  }
  if (kind !== "compute-apps") return [base];
  if (state.missing === "counters") return [];
  return state.processes
    .filter((process) => process.type.includes("C"))
    .map((process) => ({ ...base, ...ofProcess(process) }));
}

function ofProcess(process: RunningProcess): Values {
  // A comma would be a new column, so nvidia-smi prints a question mark; a newline it prints as it is.
  return {
    pid: String(process.pid),
    process_name: process.name.replaceAll(",", "?"),
    used_gpu_memory: String(process.usedMiB),
  };
}

function cell(field: Field, values: Values, { units }: CsvFormat): string {
  const value = values[field.key] ?? words.absent;
  if (value === words.absent && field.bare) return value;
  if (isWord(value)) return `[${value}]`;
  return units && field.unit !== undefined ? `${value} ${field.unit}` : value;
}

/** `2026/11/20 19:52:49.960`, local time. */
function csvTime(now: Date): string {
  const two = (part: number) => String(part).padStart(2, "0");
  const date = `${now.getFullYear()}/${two(now.getMonth() + 1)}/${two(now.getDate())}`;
  return `${date} ${now.toTimeString().slice(0, 8)}.${String(now.getMilliseconds()).padStart(3, "0")}`;
}
