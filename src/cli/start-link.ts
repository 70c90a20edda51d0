import { lstatSync, mkdirSync, readlinkSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { startProgram } from "./installation.ts";
import { note, type Step } from "./steps.ts";

/** Where the command lies on PATH. */
const LINK = "/usr/local/bin/gpunode";
/** Absolute, as `linkSteps` makes it; npm's own are relative. */
const OURS = /^\/.*\/(?:gpunode|bin\/gpunode\.js)$/;

/** Puts `gpunode` on everybody's PATH: a link to this installation, in place of one to an earlier. */
export function linkSteps(prefix = "/"): Step[] {
  const path = join(prefix, LINK);
  const target = startProgram();
  const there = whatIs(path);
  if (there === target) return [];
  if (there !== undefined && !OURS.test(there)) return [note(`${path} is something else, and is left as it is.`)];
  return [
    {
      says: `link ${path} to ${target}`,
      run() {
        mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
        rmSync(path, { force: true });
        symlinkSync(target, path);
      },
    },
  ];
}

/** Takes the link away again. */
export function unlinkSteps(prefix = "/"): Step[] {
  const path = join(prefix, LINK);
  if (!OURS.test(whatIs(path) ?? "")) return [];
  return [{ says: `remove ${path}`, run: () => rmSync(path, { force: true }) }];
}

/** What the link points to; "" for something that is no link; undefined where nothing is. */
function whatIs(path: string): string | undefined {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  return stat.isSymbolicLink() ? readlinkSync(path) : "";
}
