import { gpunodeProgram } from "../program.ts";
import { gpunodeVersion } from "../version.ts";
import { commandPage } from "./command-page.ts";
import { commandsOf } from "./commands.ts";
import { COMPLETION_FILES, completionFor } from "./completion.ts";
import { configurationPage } from "./configuration-page.ts";
import { keepDate, pageDate } from "./mdoc.ts";
import { SHELLS } from "./shells.ts";

/**
 * The files that are written from the program, by their path in the package. `before` reads what is there, so that a page keeps its date where
 * nothing else is new.
 */
export function commandFiles(before: (name: string) => string | undefined): [string, string][] {
  const gpunode = commandsOf(gpunodeProgram(async () => undefined));
  const head = { date: pageDate(new Date()), version: gpunodeVersion() };
  const pages: [string, string][] = [
    ["man/gpunode.1", commandPage(gpunode, head)],
    ["man/gpunode.toml.5", configurationPage(head)],
  ];
  return [
    ...pages.map(([name, page]): [string, string] => [name, keepDate(page, before(name))]),
    ...SHELLS.map((shell): [string, string] => [COMPLETION_FILES[shell], completionFor(shell, gpunode)]),
  ];
}
