import type { Argument, Command, Option } from "commander";

/** The commands as data, for what is written from them: the manual page, and what shells complete. */

/** One command; the first is `gpunode` itself. */
export interface CommandEntry {
  /** `["gpunode", "coordinator", "submit"]`. */
  path: readonly string[];
  description: string;
  arguments: readonly ArgumentEntry[];
  options: readonly OptionEntry[];
  commands: readonly CommandEntry[];
}

export interface ArgumentEntry {
  name: string;
  description: string;
  isRequired: boolean;
  isVariadic: boolean;
  value: ValueKind;
}

export interface OptionEntry {
  /** `-f`. */
  short?: string;
  /** `--follow`. */
  long?: string;
  description: string;
  /** Absent where it takes none. */
  argument?: { name: string; isVariadic: boolean; value: ValueKind };
  /** As it is told; absent where there is none, or where the description says it. */
  defaultText?: string;
}

/** What a value is, for who completes it. */
export type ValueKind =
  | { kind: "file" | "folder" | "workload" | "gpu" | "other" }
  | { kind: "choice"; choices: readonly string[] };

/** What a user sees of `program`: nothing that is hidden. Pure. */
export function commandsOf(program: Command, parents: readonly string[] = []): CommandEntry {
  const help = program.createHelp();
  const path = [...parents, program.name()];
  return {
    path,
    description: program.description(),
    arguments: program.registeredArguments.map((argument) => argumentEntry(argument, path)),
    options: help.visibleOptions(program).map((option) => optionEntry(option, path)),
    commands: help.visibleCommands(program).map((command) => commandsOf(command, path)),
  };
}

/** The command and all below it, each before its own. */
export function* everyCommand(command: CommandEntry): Generator<CommandEntry> {
  yield command;
  for (const child of command.commands) yield* everyCommand(child);
}

function argumentEntry(argument: Argument, path: readonly string[]): ArgumentEntry {
  const name = argument.name();
  return {
    name,
    description: argument.description,
    isRequired: argument.required,
    isVariadic: argument.variadic,
    value: valueKind(name, argument.argChoices, path),
  };
}

function optionEntry(option: Option, path: readonly string[]): OptionEntry {
  const { short, long, flags, description, argChoices, defaultValue } = option;
  const [, name, dots] = /[<[]([^>\]]+?)(\.{3})?[>\]]/.exec(flags) ?? [];
  const isTold = name !== undefined && (typeof defaultValue === "string" || typeof defaultValue === "number");
  return {
    ...(short !== undefined && { short }),
    ...(long !== undefined && { long }),
    description,
    ...(name !== undefined && {
      argument: { name, isVariadic: dots !== undefined, value: valueKind(name, argChoices, path) },
    }),
    ...(isTold && { defaultText: String(defaultValue) }),
  };
}

const FILES = new Set(["file", "path"]);

/** By the name it goes under in the help: `<file>`, `<dir>`, `<gpu...>`; `<id>` is a workload of this node outside `coordinator`. */
function valueKind(name: string, choices: readonly string[] | undefined, path: readonly string[]): ValueKind {
  if (choices !== undefined) return { kind: "choice", choices };
  if (FILES.has(name)) return { kind: "file" };
  if (name === "dir") return { kind: "folder" };
  if (name === "gpu") return { kind: "gpu" };
  return { kind: name === "id" && path[1] !== "coordinator" ? "workload" : "other" };
}
