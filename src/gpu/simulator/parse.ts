import { ScenarioError } from "./errors.ts";

type Fields = Readonly<Record<string, unknown>>;

/** The object at `at`. @throws ScenarioError where it is none, or has a key that is not in `allowed`. */
export function object(value: unknown, at: string, allowed: readonly string[]): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ScenarioError(`${at || "the scenario"}: expected an object, found ${describe(value)}`);
  }
  const unknown = Object.keys(value).find((key) => !allowed.includes(key));
  if (unknown !== undefined) {
    throw new ScenarioError(`${at ? `${at}.` : ""}${unknown}: unknown key; known are ${allowed.join(", ")}`);
  }
  return value as Fields;
}

/** The list at `at`, [] where absent. */
export function list(value: unknown, at: string): readonly unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new ScenarioError(`${at}: expected a list, found ${describe(value)}`);
  return value;
}

export function text(value: unknown, at: string): string {
  if (typeof value !== "string") throw new ScenarioError(`${at}: expected a text, found ${describe(value)}`);
  return value;
}

/** A number between `min` and `max`. */
export function number(value: unknown, at: string, [min, max]: readonly [number, number]): number {
  if (typeof value !== "number" || !(value >= min && value <= max)) {
    throw new ScenarioError(`${at}: expected a number from ${min} to ${max}, found ${describe(value)}`);
  }
  return value;
}

export function oneOf<T extends string>(value: unknown, at: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw new ScenarioError(`${at}: expected ${choices.join(" | ")}, found ${describe(value)}`);
  return found;
}

function describe(value: unknown): string {
  return value === undefined ? "nothing" : JSON.stringify(value);
}
