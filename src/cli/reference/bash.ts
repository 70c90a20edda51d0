import { type CommandEntry, everyCommand, type OptionEntry, type ValueKind } from "./commands.ts";
import { WORDS_COMMAND } from "./shells.ts";

/**
 * Completion for bash 4 and newer, without the package bash-completion. The function walks over the words before the cursor to see in which
 * command it is and whether an option waits for its value; the rest are tables.
 */
export function bashCompletion(gpunode: CommandEntry): string {
  const commands = [...everyCommand(gpunode)];
  return `# bash completion for gpunode. Written from its commands by "npm run schema".

# Asks the daemon, through the gpunode that is being typed: ids of workloads, or indexes of GPUs.
_gpunode_words() {
  local words
  words=$("\${COMP_WORDS[0]}" ${WORDS_COMMAND} "$1" \${config:+--config "$config"} 2>/dev/null | cut -f1)
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

_gpunode_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen "$1" -- "$cur")
}

_gpunode_choice() {
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

_gpunode() {
  local cur=\${COMP_WORDS[COMP_CWORD]} path=gpunode option='' config='' rest='' word
  local -i at=1 count=0
  COMPREPLY=()
  # "--config=" comes as two words, and what stands behind it as a third.
  [[ $cur == = ]] && cur=''
  while ((at < COMP_CWORD)); do
    word=\${COMP_WORDS[at]}
    if [[ $word == = ]]; then
      :
    elif [[ -n $option && $word != -* ]]; then
      [[ $option == --config ]] && config=$word
      case "$path $option" in
${indented(
  6,
  cases(commands, (option) => option.argument?.isVariadic === true, ";;"),
)}
        *) option='' ;;
      esac
    elif [[ -n $rest ]]; then
      count+=1
    elif [[ $word == -- ]]; then
      rest=1
    elif [[ $word == -* ]]; then
      option=''
      case "$path $word" in
${indented(
  6,
  cases(commands, (option) => option.argument !== undefined, "option=$word ;;"),
)}
      esac
    else
      case "$path $word" in
${indented(6, subcommandCases(commands))}
        *) count+=1 ;;
      esac
    fi
    at+=1
  done

  if [[ -n $option && $cur != -* ]]; then
    case "$path $option" in
${indented(4, valueCases(commands))}
    esac
    return
  fi
  if [[ $cur == -* && -z $rest ]]; then
    case "$path" in
${indented(4, optionCases(commands))}
    esac
    return
  fi
  case "$path $count" in
${indented(2, argumentCases(commands))}
  esac
}

complete -F _gpunode gpunode
`;
}

function indented(columns: number, lines: readonly string[]): string {
  return lines.map((line) => `${" ".repeat(columns)}  ${line}`).join("\n");
}

/** `"gpunode run --config" | …) body`, for the options that are meant. */
function cases(commands: readonly CommandEntry[], isMeant: (option: OptionEntry) => boolean, body: string): string[] {
  const patterns = commands.flatMap(({ path, options }) =>
    options.filter(isMeant).flatMap((option) => names(option).map((name) => quoted(`${path.join(" ")} ${name}`))),
  );
  return patterns.length === 0 ? [] : branch(patterns, body);
}

/** A branch of "case", a pattern a line. */
function branch(patterns: readonly string[], body: string): string[] {
  return `${patterns.join(" |\\\n")}) ${body}`.split("\n");
}

function names({ short, long }: OptionEntry): string[] {
  return [short, long].flatMap((name) => name ?? []);
}

function subcommandCases(commands: readonly CommandEntry[]): string[] {
  const patterns = commands.slice(1).map(({ path }) => quoted(path.join(" ")));
  return branch(patterns, 'path="$path $word" ;;');
}

function valueCases(commands: readonly CommandEntry[]): string[] {
  return commands.flatMap(({ path, options }) =>
    options.flatMap((option) => {
      const how = option.argument === undefined ? undefined : completing(option.argument.value);
      if (how === undefined) return [];
      const patterns = names(option).map((name) => quoted(`${path.join(" ")} ${name}`));
      return [`${patterns.join(" | ")}) ${how} ;;`];
    }),
  );
}

function optionCases(commands: readonly CommandEntry[]): string[] {
  return commands.map(
    ({ path, options }) => `${quoted(path.join(" "))}) _gpunode_choice ${quoted(options.flatMap(names).join(" "))} ;;`,
  );
}

/** Subcommands, or what the next argument may be; the last one goes on where it may be repeated. */
function argumentCases(commands: readonly CommandEntry[]): string[] {
  return commands.flatMap(({ path, commands: below, arguments: taken }) => {
    const here = path.join(" ");
    if (below.length > 0) {
      const words = below.map((command) => command.path.at(-1) ?? "").join(" ");
      return [`${quoted(`${here} 0`)}) _gpunode_choice ${quoted(words)} ;;`];
    }
    return taken.flatMap(({ value, isVariadic }, index) => {
      const how = completing(value);
      return how === undefined ? [] : [`${quoted(`${here} `)}${isVariadic ? "*" : index}) ${how} ;;`];
    });
  });
}

function completing(value: ValueKind): string | undefined {
  switch (value.kind) {
    case "file":
      return "_gpunode_files -f";
    case "folder":
      return "_gpunode_files -d";
    case "choice":
      return `_gpunode_choice ${quoted(value.choices.join(" "))}`;
    case "workload":
    case "gpu":
      return `_gpunode_words ${value.kind}`;
    case "other":
      return undefined;
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
