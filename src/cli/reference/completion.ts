import { bashCompletion } from "./bash.ts";
import type { CommandEntry } from "./commands.ts";
import { fishCompletion } from "./fish.ts";
import type { Shell } from "./shells.ts";
import { zshCompletion } from "./zsh.ts";

/** Where a package puts what a shell reads, by its usual name. */
export const COMPLETION_FILES: Readonly<Record<Shell, string>> = {
  bash: "completions/gpunode.bash",
  zsh: "completions/_gpunode",
  fish: "completions/gpunode.fish",
};

/** The script with which a shell completes the command. Pure. */
export function completionFor(shell: Shell, gpunode: CommandEntry): string {
  return { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion }[shell](gpunode);
}
