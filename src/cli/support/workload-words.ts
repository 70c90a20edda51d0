import { HIDDEN } from "../../protocol/secret.ts";

/** What a variable is called where hidden things are counted. */
export const VARIABLE = "environment variable of a workload";

/** Fields whose values are a tenant's own business: variables, and what stands behind the program of a command line. */
const VARIABLES: ReadonlySet<string> = new Set(["env", "secretEnv"]);
const COMMANDS: ReadonlySet<string> = new Set(["command", "entrypoint", "exec"]);

/** A workload's record with the names of its variables and programs, and nothing of what they were given. */
export function withoutTenantsWords(value: unknown, count: (kind: string, times: number) => void): unknown {
  if (Array.isArray(value)) return value.map((part) => withoutTenantsWords(part, count));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, part]) => {
      if (VARIABLES.has(key) && typeof part === "object" && part !== null) {
        const names = Object.keys(part);
        count(VARIABLE, names.length);
        return [key, Object.fromEntries(names.map((name) => [name, HIDDEN]))];
      }
      if (COMMANDS.has(key) && Array.isArray(part)) {
        const words = part.map((word, index) => (index === 0 && isProgram(word) ? word : HIDDEN));
        count("argument of a workload's command", words.filter((word) => word === HIDDEN).length);
        return [key, words];
      }
      return [key, withoutTenantsWords(part, count)];
    }),
  );
}

/** Values of variables in a record, to be hidden wherever else they turn up. */
export function variablesIn(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, part]) =>
    VARIABLES.has(key) && typeof part === "object" && part !== null
      ? Object.values(part).filter((each) => typeof each === "string")
      : variablesIn(part),
  );
}

/** A path, or a short plain name: what is anything else may have been put where a program is expected. */
function isProgram(word: unknown): boolean {
  return typeof word === "string" && /^(?:\/[\w./-]{1,100}|[a-z][a-z0-9.+-]{0,15})$/.test(word);
}
