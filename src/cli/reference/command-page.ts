import { envNameOf, KEY_NAMES } from "../../config/keys.ts";
import { EXIT, EXIT_WORDS } from "../outcome.ts";
import { type ArgumentEntry, type CommandEntry, everyCommand, type OptionEntry, type ValueKind } from "./commands.ts";
import { example, pageHead, prose, word } from "./mdoc.ts";

/** gpunode(1). Pure. */
export function commandPage(gpunode: CommandEntry, options: { date: string; version: string }): string {
  const commands = [...everyCommand(gpunode)].slice(1).filter(({ path }) => path.at(-1) !== "help");
  const ends = commands.filter((command) => command.commands.every(({ path }) => path.at(-1) === "help"));
  const exits = (Object.entries(EXIT) as [keyof typeof EXIT, number][]).sort(([, a], [, b]) => a - b);
  return `${[
    ...pageHead("gpunode", 1, options),
    ...[".Sh NAME", ".Nm gpunode", ".Nd lend the GPUs of a machine, and have them back at any moment"],
    ".Sh SYNOPSIS",
    ...ends.flatMap((command) => [".Nm", ...synopsis(command)]),
    ".Sh DESCRIPTION",
    ".Nm",
    ...prose(
      "finds the GPUs of this machine, tells a coordinator what they can do, runs the containers it is assigned, each with GPUs of its own, and gives the GPUs back the moment their owner wants them.",
    ),
    ...[".Nm gpunode", ".Cm run"],
    ...prose(
      "is the daemon; the other commands talk to it over a socket that root and the members of its group may use.",
    ),
    ...[".Pp", "The commands are:"],
    ...commands.flatMap(commandSection),
    ".Sh ENVIRONMENT",
    ".Bl -tag -width Ds",
    ...environment().flatMap(([name, text]) => [`.It Ev ${word(name)}`, ...prose(text)]),
    ".El",
    ".Sh FILES",
    ".Bl -tag -width Ds",
    ...FILES.flatMap(([name, text]) => [`.It Pa ${word(name)}`, ...prose(text)]),
    ".El",
    ".Sh EXIT STATUS",
    ".Bl -tag -width Ds",
    ...exits.flatMap(([name, code]) => [`.It ${code}`, ...prose(`${EXIT_WORDS[name]}${EXIT_MORE[name] ?? ""}.`)]),
    ".El",
    ".Sh EXAMPLES",
    ...EXAMPLES.flatMap(([text, lines]) => [...prose(text), ...example(lines), ".Pp"]).slice(0, -1),
    ".Sh SEE ALSO",
    ".Xr docker 1 ,",
    ".Xr systemctl 1 ,",
    ".Xr gpunode.toml 5",
  ].join("\n")}\n`;
}

const EXIT_MORE: Partial<Record<keyof typeof EXIT, string>> = {
  failed: ": the sentence on the standard error says what and what to do",
  usage: ": the command line is wrong",
  notRunning: ", or this user may not talk to it",
};

/** What else is heeded, beside a variable for each key. */
function environment(): [string, string][] {
  const [first] = KEY_NAMES;
  const some = KEY_NAMES.find((name) => name.includes(".")) ?? first ?? "name";
  return [
    ["GPUNODE_CONFIG", "The configuration file, where `--config` does not name one."],
    [
      "GPUNODE_SECTION_KEY",
      `Sets the key of the configuration, in place of the file: \`${envNameOf(some)}\` for \`${some}\`. See gpunode.toml(5) for all of them.`,
    ],
    ["GPUNODE_COORDINATOR_API", "HTTP API that the commands below `coordinator` talk to."],
    ["GPUNODE_COORDINATOR_API_TOKEN", "Its bearer token. Better kept in a file: `--api-token-file`."],
    ["NO_COLOR", "Where it is set to anything, nothing is coloured."],
    ["LC_ALL, LC_CTYPE, LANG", "`status --watch` draws in ASCII unless the first of these that is set says UTF-8."],
    ["TERM", "On a `dumb` terminal `status --watch` writes one picture below the other."],
  ];
}

const FILES: [string, string][] = [
  ["/etc/gpunode/config.toml", "The configuration, read where it exists and no other is named. See gpunode.toml(5)."],
  [
    "/run/gpunode/gpunode.sock",
    "The daemon's socket. Of a daemon without root: `$XDG_RUNTIME_DIR/gpunode/gpunode.sock`.",
  ],
  [
    "/var/lib/gpunode",
    "The node's key, records of workloads, events not delivered yet and the ledger of usage. Of a daemon without root: `~/.local/state/gpunode`.",
  ],
  ["/etc/systemd/system/gpunode.service", "The unit that `gpunode service install` writes."],
];

const EXAMPLES: [string, string[]][] = [
  [
    "Lend the GPUs as a service:",
    ["sudo gpunode service install", "sudoedit /etc/gpunode/config.toml", "gpunode status --watch"],
  ],
  ["Have them back for two hours; what runs is told, saves its work, and goes:", ["gpunode reclaim --for 2h"]],
  ["Only the first one, until further notice:", ["gpunode reclaim --gpu 0", "gpunode resume --gpu 0"]],
  ["What was lent in the last week, each record verified:", ["gpunode usage --since 7d"]],
  ["Try all of it on this machine, with a coordinator of its own:", ["gpunode demo"]],
  [
    "Submit a workload to a coordinator and follow it to its end:",
    [
      "gpunode coordinator submit \\-\\-gpus 1 \\-\\-wait ghcr.io/me/train:1 \\-\\- python train.py".replaceAll(
        "\\",
        "",
      ),
    ],
  ],
];

/** The lines of a synopsis behind the name. */
function synopsis({ path, options, arguments: taken }: CommandEntry): string[] {
  return [
    `.Cm ${path.slice(1).map(word).join(" ")}`,
    ...options.filter(isOfItsOwn).map((option) => `.Op ${flagOf(option)}`),
    ...taken.map(argumentOf),
  ];
}

function commandSection(command: CommandEntry): string[] {
  const { path, description, options, arguments: taken, commands } = command;
  const name = path.slice(1).join(" ");
  if (commands.some((below) => below.path.at(-1) !== "help"))
    return [`.Ss ${word(name)}`, ...prose(sentence(description))];
  const entries = [
    ...taken.flatMap((argument) => {
      const text =
        `${argument.description === "" ? "" : sentence(argument.description)}${choicesOf(argument.value)}`.trim();
      return text === "" ? [] : [`.It Ar ${word(argument.name)}`, ...prose(text)];
    }),
    ...options.filter(isOfItsOwn).flatMap((option) => [`.It ${flagsOf(option)}`, ...prose(optionText(option))]),
  ];
  return [
    `.Ss ${word(name)}`,
    ...prose(sentence(description)),
    ...(entries.length === 0 ? [] : [".Bl -tag -width Ds", ...entries, ".El"]),
  ];
}

/** Each command has a help; it is not told of each. */
function isOfItsOwn({ long }: OptionEntry): boolean {
  return long !== "--help";
}

function optionText({ description, argument, defaultText }: OptionEntry): string {
  return `${sentence(description)}${argument === undefined ? "" : choicesOf(argument.value)}${defaultText === undefined ? "" : ` Default: \`${defaultText}\`.`}`;
}

function choicesOf(value: ValueKind): string {
  return value.kind === "choice" ? ` One of ${value.choices.join(", ")}.` : "";
}

/** `Fl f , Fl \-follow Ar lines`. */
function flagsOf({ short, long, argument }: OptionEntry): string {
  const names = [short, long].flatMap((name) => (name === undefined ? [] : [`Fl ${word(name.slice(1))}`]));
  return `${names.join(" , ")}${argument === undefined ? "" : ` Ar ${word(argument.name)}${argument.isVariadic ? " ..." : ""}`}`;
}

function flagOf({ short, long = "", argument }: OptionEntry): string {
  const name = `Fl ${word((short ?? long).slice(1))}`;
  return argument === undefined ? name : `${name} Ar ${word(argument.name)}${argument.isVariadic ? " ..." : ""}`;
}

function argumentOf({ name, isRequired, isVariadic }: ArgumentEntry): string {
  const shown = `${word(name)}${isVariadic ? " ..." : ""}`;
  return isRequired ? `.Ar ${shown}` : `.Op Ar ${shown}`;
}

function sentence(text: string): string {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(first) ? first : `${first}.`;
}
