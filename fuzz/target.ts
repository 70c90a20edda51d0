import type { Draw } from "./draw.ts";

/** Something that reads what it cannot trust, and what must hold for whatever it reads. */
export interface Target<T = unknown> {
  name: string;
  /** How many it gets in a whole run. */
  inputs: number;
  make(draw: Draw): T;
  /** Throws (or rejects) where what must hold does not. */
  check(input: T): void | Promise<void>;
  /** Inputs one `check` stands for, where it is a conversation of several. */
  counts?(input: T): number;
}

/** Targets of a group, with what they need of the machine until they are done. */
export interface TargetGroup extends AsyncDisposable {
  targets: readonly Target[];
}

export type OpenGroup = () => Promise<TargetGroup>;

/** A group that holds nothing. */
export function plainGroup(...targets: readonly Target[]): OpenGroup {
  return async () => ({ targets, [Symbol.asyncDispose]: async () => undefined });
}

/** Types are kept within a target; the runner needs none of them. */
export function target<T>(of: Target<T>): Target {
  return of as Target;
}

export function ensure(holds: boolean, otherwise: string | (() => string)): asserts holds {
  if (!holds) throw new Error(typeof otherwise === "string" ? otherwise : otherwise());
}

/** Passes over what the contract of `work` says it may throw. Returns undefined then. */
export function allowing<T>(isAllowed: (error: unknown) => boolean, work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (!isAllowed(error)) throw error;
    return undefined;
  }
}
