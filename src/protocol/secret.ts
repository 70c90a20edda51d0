import { inspect } from "node:util";

/** What every way of printing a secret shows. */
export const HIDDEN = "[hidden]";

/** A value that no log line, JSON or error message shows; only `reveal` gives it out. */
export class Secret<T = string> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  reveal(): T {
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

/** Anything shorter stands in every sentence: to hide it would garble them and tell what it is. */
const SHORTEST = 4;
/** Of a secret within longer base64, the first and last characters depend on what stands beside it; what is left must be long enough to be it. */
const SHORTEST_BASE64 = 8;

/**
 * A function that takes these values out of a text, for words that came from elsewhere (an engine, a registry) and may repeat what they
 * were sent: as they are, URL-encoded, escaped as in JSON, and in base64, also in the middle of other base64. Values of less
 * than four characters stay.
 */
export function hiding(values: readonly string[]): (text: string) => string {
  const forms = [...new Set(values.filter((value) => value.length >= SHORTEST).flatMap(formsOf))];
  // The longest first: what is part of another must not be taken out of its middle.
  forms.sort((a, b) => b.length - a.length);
  return (text) => forms.reduce((rest, form) => rest.replaceAll(form, HIDDEN), text);
}

function formsOf(value: string): string[] {
  const base64 = [0, 1, 2]
    .map((offset) => base64Within(value, offset))
    .filter((form) => form.length >= SHORTEST_BASE64);
  const url = base64.map((form) => form.replaceAll("+", "-").replaceAll("/", "_"));
  return [value, encodeURIComponent(value.toWellFormed()), JSON.stringify(value).slice(1, -1), ...base64, ...url];
}

/** The characters of base64 that only `value` decides, where it begins `offset` bytes (of three) into what was encoded. */
function base64Within(value: string, offset: number): string {
  const bytes = Buffer.concat([Buffer.alloc(offset), Buffer.from(value)]);
  const firstOwn = Math.ceil((offset * 8) / 6);
  return bytes.toString("base64").slice(firstOwn, Math.floor((bytes.length * 8) / 6));
}
