const FORBIDDEN = new Set(["secretEnv", "registryAuth"]);

/**
 * Throws TypeError where a record that is about to be written has a field that carries secrets. Whoever writes records
 * leaves them out; this is the net below. The names within `env` are the workload's own business.
 */
export function refuseSecrets(value: unknown, at = "record"): void {
  if (typeof value !== "object" || value === null) return;
  for (const [key, part] of Object.entries(value)) {
    if (FORBIDDEN.has(key)) throw new TypeError(`${at}.${key} carries secrets and is never stored`);
    if (key !== "env") refuseSecrets(part, `${at}.${key}`);
  }
}
