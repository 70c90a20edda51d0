const FORBIDDEN = new Set(["secretEnv", "registryAuth"]);

/**
 * Throws TypeError where a record that is about to be written has a field that carries secrets. Whoever writes records
 * leaves them out; this is the net below. The names within `env` are the workload's own business.
 */
export function refuseSecrets(value: unknown): void {
  const path = pathToSecret(value);
  if (path !== undefined) throw new TypeError(`record${path} carries secrets and is never stored`);
}

/** Whether `refuseSecrets` is worth the walk: by the JSON, where that is there already. */
export function namesSecrets(json: string): boolean {
  for (const name of FORBIDDEN) if (json.includes(name)) return true;
  return false;
}

/** `.0.secretEnv`: where it stands; undefined where there is none. */
function pathToSecret(value: unknown): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  for (const key of Object.keys(value)) {
    if (FORBIDDEN.has(key)) return `.${key}`;
    const part = (value as Record<string, unknown>)[key];
    // Every commit is looked through: nothing is built but where something is found.
    if (typeof part !== "object" || key === "env") continue;
    const inside = pathToSecret(part);
    if (inside !== undefined) return `.${key}${inside}`;
  }
  return undefined;
}
