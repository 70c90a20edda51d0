import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "./package-root.ts";

/** Put in by scripts/build.mjs. */
declare const GPUNODE_VERSION: string;

/** Version of this gpunode; from package.json where it runs from its sources. */
export function gpunodeVersion(): string {
  if (typeof GPUNODE_VERSION === "string") return GPUNODE_VERSION;
  return (JSON.parse(readFileSync(join(packageRoot(), "package.json"), "utf8")) as { version: string }).version;
}
