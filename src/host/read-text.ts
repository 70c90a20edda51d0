import { readFileSync } from "node:fs";

/** A small file of the system, `/proc` and `/sys` mostly; undefined where it is not there or may not be read. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
