import type { Smi } from "./runner.ts";

/** What is asked of each GPU with every sample; which of it a driver knows, `--help-query-gpu` tells. */
export const WANTED_FIELDS = [
  "index",
  "uuid",
  "utilization.gpu",
  "utilization.memory",
  "memory.used",
  "memory.total",
  "power.draw",
  "temperature.gpu",
  "temperature.memory",
  "fan.speed",
  "clocks.sm",
  "clocks.mem",
  "clocks_throttle_reasons.active",
  "utilization.encoder",
  "utilization.decoder",
  "ecc.errors.uncorrected.volatile.total",
] as const;
export type Field = (typeof WANTED_FIELDS)[number];

/** In every driver since 340: enough to go on with where the help cannot be read. */
const ALWAYS: ReadonlySet<Field> = new Set([
  "index",
  "uuid",
  "utilization.gpu",
  "memory.used",
  "memory.total",
  "temperature.gpu",
]);

/** The wanted fields this driver knows. One unknown field would fail the whole query. */
export async function knownFields(smi: Smi, signal: AbortSignal): Promise<Field[]> {
  const result = await smi.run(["--help-query-gpu"], { signal });
  const known = new Set<string>();
  if (result.ok)
    for (const [, name] of result.stdout.matchAll(/"([a-z0-9_.]+)"/g)) if (name !== undefined) known.add(name);
  return WANTED_FIELDS.filter((field) => (known.size === 0 ? ALWAYS.has(field) : known.has(field)));
}
