import { type CommandEntry, everyCommand, type OptionEntry, type ValueKind } from "./commands.ts";
import { WORDS_COMMAND } from "./shells.ts";

/** Completion for fish: a line for each thing that can be typed, with the place where it can. */
export function fishCompletion(gpunode: CommandEntry): string {
  const commands = [...everyCommand(gpunode)];
  const taking = commands.flatMap(({ path, options }) =>
    options
      .filter(({ argument }) => argument !== undefined)
      .flatMap(({ short, long }) => [short, long])
      .flatMap((name) => (name === undefined ? [] : [quoted([...path, name].join(" "))])),
  );
  const below = commands.slice(1).map(({ path }) => quoted(path.join(" ")));
  return `# fish completion for gpunode. Written from its commands by "npm run schema".

# The command the cursor is in, and how many arguments of it are there already: "gpunode coordinator logs:1".
function __gpunode_place
    set -l place gpunode
    set -l count 0
    set -l skip 0
    set -l words (commandline -opc)
    for word in $words[2..]
        if test $skip -eq 1
            set skip 0
            continue
        end
        switch "$place $word"
            case ${taking.join(" ")}
                set skip 1
            case ${below.join(" ")}
                set place "$place $word"
            case '* -*'
            case '*'
                set count (math $count + 1)
        end
    end
    echo "$place:$count"
end

function __gpunode_at
    string match -q -- "$argv[1]" (__gpunode_place)
end

# Asks the daemon, through the gpunode that is being typed: ids of workloads, or indexes of GPUs.
function __gpunode_words
    set -l words (commandline -opc)
    set -l config
    if set -l at (contains -i -- --config $words)
        set config --config $words[(math $at + 1)]
    end
    $words[1] ${WORDS_COMMAND} $argv[1] $config 2>/dev/null
end

complete -c gpunode -f
${commands.flatMap(linesOf).join("\n")}
`;
}

function linesOf({ path, options, arguments: taken, commands }: CommandEntry): string[] {
  const place = path.join(" ");
  const here = (condition: string) => `complete -c gpunode -n ${quoted(`__gpunode_at ${quoted(condition)}`)}`;
  return [
    ...options.map((option) => `${here(`${place}:*`)} ${optionOf(option)}`),
    ...commands.map(
      ({ path: below, description }) => `${here(`${place}:0`)} -a ${below.at(-1)} -d ${quoted(description)}`,
    ),
    ...taken.flatMap(({ value, isVariadic }, index) => {
      const how = completing(value);
      return how === "" ? [] : [`${here(`${place}:${isVariadic ? "*" : index}`)} ${how}`];
    }),
  ];
}

function optionOf({ short, long, description, argument }: OptionEntry): string {
  return [
    ...(short === undefined ? [] : [`-s ${short.slice(1)}`]),
    ...(long === undefined ? [] : [`-l ${long.slice(2)}`]),
    ...(argument === undefined ? [] : [`-r ${completing(argument.value)}`.trim()]),
    `-d ${quoted(description)}`,
  ].join(" ");
}

function completing(value: ValueKind): string {
  switch (value.kind) {
    case "file":
      return "-F";
    case "folder":
      return "-f -a '(__fish_complete_directories (commandline -ct))'";
    case "choice":
      return `-f -a ${quoted(value.choices.join(" "))}`;
    case "workload":
    case "gpu":
      return `-f -a '(__gpunode_words ${value.kind})'`;
    case "other":
      return "";
  }
}

/** Within single quotes fish knows two escapes. */
function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
