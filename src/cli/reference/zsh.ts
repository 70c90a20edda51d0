import { type ArgumentEntry, type CommandEntry, everyCommand, type OptionEntry, type ValueKind } from "./commands.ts";
import { WORDS_COMMAND } from "./shells.ts";

/** Completion for zsh: a function for each command, with the specifications `_arguments` takes. */
export function zshCompletion(gpunode: CommandEntry): string {
  const functions = [...everyCommand(gpunode)].map(functionOf);
  return `#compdef gpunode
# zsh completion for gpunode. Written from its commands by "npm run schema".

# Asks the daemon, through the gpunode that is being typed: ids of workloads, or indexes of GPUs.
_gpunode_words() {
  # "_arguments" puts options of its own before it.
  local kind=$argv[-1]
  local -a told found
  local line tab=$'\\t'
  told=("\${(@f)$(_call_program words \${(q)gpunode_command} ${WORDS_COMMAND} $kind \${opt_args[--config]:+--config \${opt_args[--config]}} 2>/dev/null)}")
  for line in $told; do
    [[ -n $line ]] && found+=("\${\${line%%$tab*}//:/\\\\:}:\${line#*$tab}")
  done
  _describe -t words $kind found
}

${functions.join("\n\n")}

_gpunode() {
  local gpunode_command=$words[1]
  ${nameOf(gpunode.path)}
}

# Also where the file is sourced, rather than found in $fpath.
if [[ \${zsh_eval_context[-1]} == loadautofunc ]]; then
  _gpunode "$@"
else
  compdef _gpunode gpunode
fi
`;
}

function nameOf(path: readonly string[]): string {
  return `_gpunode_${path.slice(1).join("_").replaceAll("-", "_") || "all"}_command`;
}

function functionOf({ path, options, arguments: taken, commands }: CommandEntry): string {
  const specifications = options.map(optionSpecification);
  if (commands.length === 0) {
    const all = [...specifications, ...taken.map(argumentSpecification)];
    return `${nameOf(path)}() {\n  _arguments -s -S${lines(all)}\n}`;
  }
  const described = commands.map(({ path: below, description }) =>
    quoted(`${(below.at(-1) ?? "").replaceAll(":", "\\:")}:${description}`),
  );
  const branches = commands.map(({ path: below }) => `    ${below.at(-1)}) ${nameOf(below)} ;;`);
  return `${nameOf(path)}() {
  local curcontext=$curcontext state line
  local -a commands
  typeset -A opt_args
  _arguments -C -s${lines([...specifications, quoted("1: :->command"), quoted("*:: :->rest")])}
  case $state in
    command)
      commands=(
${described.map((text) => `        ${text}`).join("\n")}
      )
      _describe -t commands command commands
      ;;
    rest)
      case $line[1] in
${branches.map((branch) => `    ${branch}`).join("\n")}
      esac
      ;;
  esac
}`;
}

function lines(specifications: readonly string[]): string {
  return specifications.map((specification) => ` \\\n    ${specification}`).join("");
}

/** `'(-f --follow)'{-f,--follow}'[go on until it ends]'`. */
function optionSpecification({ short, long, description, argument }: OptionEntry): string {
  const told = `[${escaped(description)}]`;
  const value = argument === undefined ? "" : `:${argument.name}:${action(argument.value)}`;
  const repeated = argument?.isVariadic === true || /may be repeated/.test(description) ? "*" : "";
  const assigned = argument === undefined ? "" : "=";
  if (short !== undefined && long !== undefined) {
    const alternatives = repeated === "" ? quoted(`(${short} ${long})`) : "'*'";
    return `${alternatives}{${short}${argument === undefined ? "" : "+"},${long}${assigned}}${quoted(told + value)}`;
  }
  const flag = long === undefined ? short : `${long}${assigned}`;
  return quoted(`${repeated}${flag}${told}${value}`);
}

function argumentSpecification({ name, isRequired, isVariadic, value }: ArgumentEntry): string {
  return quoted(`${isVariadic ? "*" : ""}:${isRequired || isVariadic ? "" : ":"}${name}:${action(value)}`);
}

function action(value: ValueKind): string {
  switch (value.kind) {
    case "file":
      return "_files";
    case "folder":
      return "_files -/";
    case "choice":
      return `(${value.choices.join(" ")})`;
    case "workload":
    case "gpu":
      return `_gpunode_words ${value.kind}`;
    case "other":
      return " ";
  }
}

/** Within the brackets of a specification. */
function escaped(description: string): string {
  return description.replace(/[[\]\\:]/g, "\\$&");
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
