import { basename } from "node:path";
import { fixtureFiles } from "../../support/fixtures.ts";

/** Every recorded `-q -x` document, relative to the recordings. */
export const documents: readonly string[] = [
  ...fixtureFiles("xml", ".xml").map((path) => `xml/${basename(path)}`),
  ...fixtureFiles("xml-mock", ".xml").map((path) => `xml-mock/${basename(path)}`),
  ...fixtureFiles("wild", ".xml").map((path) => `wild/${basename(path)}`),
  ...fixtureFiles("real-binary-mock-nvml", ".stdout")
    .map((path) => basename(path))
    .filter((name) => name.includes("qx") && !name.startsWith("stream-"))
    .map((name) => `real-binary-mock-nvml/${name}`),
];

/** Text of each `<gpu>` element, found without a parser. */
export function gpuTexts(text: string): string[] {
  return text.split(/<gpu id=/).slice(1);
}

/** Text of the first element of that name; undefined where there is none. */
export function first(text: string, element: string): string | undefined {
  return new RegExp(`<${element}>\\s*([^<]*?)\\s*</${element}>`).exec(text)?.[1];
}

/** The elements between `<parent>` and `</parent>`. */
export function within(text: string, parent: string): string {
  return new RegExp(`<${parent}>([\\s\\S]*?)</${parent}>`).exec(text)?.[1] ?? "";
}

/** The number a value with a unit begins with; undefined where it is none. */
export function numberOf(text: string | undefined): number | undefined {
  const match = /^(\d+(\.\d+)?)/.exec(text ?? "");
  return match === null ? undefined : Number(match[1]);
}
