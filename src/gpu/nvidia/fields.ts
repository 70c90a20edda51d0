import type { Smi } from "./runner.ts";

/** What is asked of each GPU with every sample; which of it a driver knows, `--help-query-gpu` tells. */
export const WANTED_FIELDS = [
  "index",
  "uuid",
  "utilization.gpu",
  "utilization.memory",
  "memory.used",
  "memory.total",
  "memory.reserved",
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

/** Newer names, taken where a driver no longer knows the wanted one. */
const RENAMED: Partial<Record<Field, string>> = { "clocks_throttle_reasons.active": "clocks_event_reasons.active" };

/** What a driver's help told, so that it is asked once for each version. */
const asked = new WeakMap<Smi, { driverVersion: string; fields: StreamField[] }>();

/** A wanted field and the name by which this driver knows it. */
export interface StreamField {
  field: Field;
  name: string;
}

/**
 * The wanted fields this driver knows; one unknown field would fail the whole query. With `driverVersion` the answer is kept, and the
 * same version is not asked again.
 */
export async function knownFields(
  smi: Smi,
  { signal, driverVersion }: { signal: AbortSignal; driverVersion?: string | undefined },
): Promise<StreamField[]> {
  const kept = asked.get(smi);
  if (kept !== undefined && kept.driverVersion === driverVersion) return kept.fields;
  const result = await smi.run(["--help-query-gpu"], { signal });
  const known = new Set<string>();
  if (result.ok)
    for (const [, name] of result.stdout.matchAll(/"([a-z0-9_.]+)"/g)) if (name !== undefined) known.add(name);
  if (known.size === 0) return WANTED_FIELDS.filter((field) => ALWAYS.has(field)).map(named);
  const fields = WANTED_FIELDS.flatMap((field) => {
    const name = [field, RENAMED[field]].find((spelling) => spelling !== undefined && known.has(spelling));
    return name === undefined ? [] : [{ field, name }];
  });
  if (driverVersion !== undefined) asked.set(smi, { driverVersion, fields });
  return fields;
}

/** Asks the help again next time: the driver refused a field it named. */
export function forgetFields(smi: Smi): void {
  asked.delete(smi);
}

function named(field: Field): StreamField {
  return { field, name: field };
}
