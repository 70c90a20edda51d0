import { coordinatorAddress } from "../../link/dial.ts";
import { type Finding, preflight } from "../../link/preflight.ts";
import { paint, printable, type TableOptions } from "../table.ts";
import type { Answers } from "./answers.ts";

/** What is dialled, and by what. */
export type Way = Pick<Answers, "url" | "insecure" | "caFile"> & {
  proxy: string | undefined;
  certFile: string | undefined;
  keyFile: string | undefined;
};

/** Goes the way to the coordinator and writes what is found, line by line. Returns what is wrong; undefined where all is well. */
export async function lookAt(
  { url, insecure, ...way }: Way,
  signal: AbortSignal,
  options: TableOptions,
): Promise<Finding | undefined> {
  process.stdout.write(`Looking at ${url}; it is told nothing of this machine yet.\n`);
  const given = Object.fromEntries(Object.entries(way).filter(([, value]) => value !== undefined));
  for await (const finding of preflight({ address: coordinatorAddress(url, { insecure }), ...given }, signal)) {
    process.stdout.write(findingInWords(finding, options));
    if (finding.verdict === "bad") return finding;
  }
  return undefined;
}

const STYLES = { good: "green", doubtful: "yellow", bad: "red" } as const;
const MARKS = { good: "ok", doubtful: "but", bad: "no" } as const;

function findingInWords({ about, verdict, says, remedy }: Finding, options: TableOptions): string {
  const line = `  ${about.padEnd(12)} ${paint(MARKS[verdict].padEnd(4), STYLES[verdict], options)} ${printable(says)}\n`;
  return remedy === undefined ? line : `${line}${" ".repeat(20)}${printable(remedy)}\n`;
}

/** What is wrong and what to do, in one sentence. */
export function complaint(url: string, { says, remedy }: Finding): string {
  return `${url} cannot be used: ${says}${remedy === undefined ? "" : `; ${remedy}`}`;
}
