import { setFlagsFromString } from "node:v8";

/**
 * Keeps this process small, for one that lives long and computes little; to be called before it loads what it runs. V8 is told
 *
 * - not to compile with its optimizing compilers: a daemon at half a percent of a core gains nothing from them, and their code and
 *   working memory are 16 MiB. Baseline code stays.
 * - not to let the space for new objects grow: a megabyte is collected in a millisecond, and would else become 32 that stay.
 *
 * V8 looks at each of these when it is about to do the thing, so they hold from here on (docs/performance.md has the figures).
 */
export function staySmall(): void {
  for (const flag of ["--no-opt", "--no-maglev", "--semi-space-growth-factor=1"]) setFlagsFromString(flag);
}
