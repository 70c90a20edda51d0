import type { Kind } from "./kinds.ts";
import * as kinds from "./kinds.ts";
import type { Surroundings } from "./surroundings.ts";

/** What is known of one key of the configuration; the reference (docs/configuration.md) is written from it. */
export interface Key<T> {
  kind: Kind<T>;
  /** One or two sentences for the owner of the machine. */
  description: string;
  /** Value where nobody sets one, with where it came from if not simply from here. */
  fallback?: (surroundings: Surroundings) => T | { value: T; source: string };
  /** For the reference; "none" where there is no fallback. */
  defaultText: string;
  /** Flag of `gpunode run` that sets it. */
  flag?: string;
}

export function key<T>(definition: Key<T> & { fallback: NonNullable<Key<T>["fallback"]> }): Key<T> {
  return definition;
}

/** A key that may stay without a value. */
export function optional<T>(definition: Omit<Key<T>, "fallback" | "defaultText">): Key<T | undefined> {
  return { ...definition, defaultText: "none" };
}

/** A key with a plain value as its default. */
export function defaulted<T>(value: T, definition: Omit<Key<T>, "fallback" | "defaultText">): Key<T> {
  return { ...definition, fallback: () => value, defaultText: JSON.stringify(value) };
}

/** A share from which something counts as pressure. */
export function percent(value: number, description: string): Key<number> {
  return defaulted<number>(value, { kind: kinds.number({ min: 1, max: 100 }), description });
}

export function mebibytes(value: number, description: string): Key<number> {
  return defaulted<number>(value, { kind: kinds.integer({ min: 0, max: 1_073_741_824 }), description });
}

export function seconds(value: number, [min, max]: readonly [number, number], description: string): Key<number> {
  return defaulted<number>(value, { kind: kinds.integer({ min, max }), description });
}

export function onOff(value: boolean, description: string): Key<boolean> {
  return defaulted<boolean>(value, { kind: kinds.boolean(), description });
}
