import { inspect } from "node:util";

/** What every way of printing a secret shows. */
export const HIDDEN = "[hidden]";

/** A value that no log line, JSON or error message shows; only `reveal` gives it out. */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return HIDDEN;
  }

  toJSON(): string {
    return HIDDEN;
  }

  [inspect.custom](): string {
    return HIDDEN;
  }
}
