import { UsageError } from "./outcome.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** Milliseconds of a unit of time as it is written behind a number: `90m`, `2h`. */
export const UNIT_MS: Readonly<Record<string, number>> = { m: MINUTE_MS, h: HOUR_MS, d: DAY_MS, w: 7 * DAY_MS };

/** "90m", "2h", "1.5h", "1d" in milliseconds. Throws `UsageError`. */
export function lengthOf(flag: string, text: string): number {
  const [, count, unit = ""] = /^(\d{1,5}(?:\.\d{1,2})?)\s*([mhdw])$/.exec(text.trim()) ?? [];
  if (count === undefined) throw new UsageError(`${flag} ${text}: expected a length such as 90m, 2h or 1d`);
  return Math.round(Number(count) * (UNIT_MS[unit] ?? 0));
}
