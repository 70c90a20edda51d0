import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** Folder of the package this code runs from, whether from `src` or from `dist`. */
export function packageRoot(): string {
  let dir = import.meta.dirname;
  while (!existsSync(join(dir, "package.json"))) {
    const parent = dirname(dir);
    if (parent === dir) throw new Error(`no package.json above ${import.meta.dirname}: gpunode is not installed whole`);
    dir = parent;
  }
  return dir;
}
