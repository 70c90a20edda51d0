import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

/** Where the recorded nvidia-smi output lies: beside the checkout, never inside it. */
const root = resolve(import.meta.dirname, "../../../shared/fixtures");

/** True where the recordings are at hand; tests that need them are registered only then. */
export const haveFixtures = existsSync(join(root, "INDEX.md"));

/** Full paths of the files in a folder of the recordings whose names end with `suffix`; [] where there are none. */
export function fixtureFiles(folder: string, suffix = ""): string[] {
  const dir = join(root, folder);
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(suffix))
    .map((entry) => join(dir, entry.name))
    .sort();
}

/** One recorded file as text. Throws where it does not exist. */
export function fixture(path: string): string {
  return readFileSync(join(root, path), "utf8");
}
