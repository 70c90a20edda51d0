const FORBIDDEN = ["secretEnv", "registryAuth"];

/**
 * Throws TypeError where a record that is about to be written has a field that carries secrets. Whoever writes records
 * leaves them out; this is the net below. The names within `env` are the workload's own business.
 */
export function refuseSecrets(value: unknown): void {
  const path = pathToSecret(value);
  if (path !== undefined) throw new TypeError(`record${path} carries secrets and is never stored`);
}

/** The record's JSON. Throws as `refuseSecrets` does, and walks only through those few in which such a name stands at all. */
export function jsonWithoutSecrets(value: unknown): string {
  const json = JSON.stringify(value);
  if (FORBIDDEN.some((name) => json.includes(name))) refuseSecrets(value);
  return json;
}

/** `.0.secretEnv`: where it stands; undefined where there is none. */
function pathToSecret(value: unknown): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  for (const key of Object.keys(value)) {
    if (FORBIDDEN.includes(key)) return `.${key}`;
    const part = (value as Record<string, unknown>)[key];
    if (typeof part !== "object" || key === "env") continue;
    const inside = pathToSecret(part);
    if (inside !== undefined) return `.${key}${inside}`;
  }
  return undefined;
}
