import { resolve } from "node:path";

/** Unpacked Debian packages stay between runs, out of git's sight, and go with the dependencies. */
export const PACKAGES_DIR = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");
