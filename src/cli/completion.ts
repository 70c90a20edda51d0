import { Argument, type Command } from "commander";
import { type ConfigOptions, daemonOf, withConfig } from "./daemon-client.ts";
import { command, print } from "./outcome.ts";
import { SHELLS, type Shell, WORDS_COMMAND } from "./reference/shells.ts";
import { printable } from "./table.ts";

/** Nobody waits longer for a shell that thinks. */
const ANSWER_WITHIN_MS = 2_000;

export function registerCompletion(program: Command): void {
  program
    .command("completion")
    .description("print what lets a shell complete gpunode's commands")
    .addArgument(new Argument("<shell>").choices(SHELLS))
    .addHelpText("after", "\nFor this shell: source <(gpunode completion bash), or: gpunode completion fish | source")
    .action(
      command(async (shell: Shell) => {
        const [{ completionFor }, { commandsOf }] = await Promise.all([
          import("./reference/completion.ts"),
          import("./reference/commands.ts"),
        ]);
        print(completionFor(shell, commandsOf(program)));
      }),
    );
}

/**
 * Words with what they are, a tab between the two, one a line: ids of workloads, or indexes of GPUs. Silent and with exit code 0 whatever is
 * wrong: it runs while somebody types.
 */
export function registerWords(program: Command): void {
  withConfig(program.command(WORDS_COMMAND, { hidden: true }))
    .argument("<kind>")
    .action(async (kind: string, options: ConfigOptions) => {
      try {
        const daemon = await daemonOf(options);
        const { workloads, gpus } = await daemon.status({ signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
        const words: [string, string][] =
          kind === "gpu"
            ? gpus.map(({ index, name, allocatedTo }) => [
                String(index),
                `${name}${allocatedTo === undefined ? "" : `, ${allocatedTo}`}`,
              ])
            : workloads.map(({ id, state, image }) => [id, `${state}, ${image}`]);
        for (const [word, what] of new Map(words)) print(`${printable(word)}\t${printable(what)}\n`);
      } catch {
        // Nothing to complete with.
      }
    });
}
