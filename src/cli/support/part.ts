import type { Said } from "./external.ts";
import type { Hidden, Redactor } from "./redactor.ts";

/** One file of a bundle, and how it is made. */
export interface Part {
  file: string;
  /** For the manifest: the command, the file, the question. */
  from: string;
  /** Makes its text. What it hides by itself, knowing what its text means, it counts. May throw. */
  make(count: (kind: string, times: number) => void): Promise<Said> | Said;
}

/** A file as it goes into the bundle. */
export interface MadePart {
  file: string;
  from: string;
  text: string;
  problem?: string;
  hidden: Hidden;
}

/** Makes a part, and takes out of it what its maker cannot know as a secret. Never rejects. */
export async function madePart({ file, from, make }: Part, redactor: Redactor): Promise<MadePart> {
  const own: Hidden = {};
  const count = (kind: string, times: number) => {
    if (times > 0) own[kind] = (own[kind] ?? 0) + times;
  };
  let said: Said;
  try {
    said = await make(count);
  } catch (error) {
    said = { text: "", problem: inWords(error as NodeJS.ErrnoException) };
  }
  const { text, hidden } = redactor.redact(said.text);
  for (const [kind, times] of Object.entries(hidden)) count(kind, times);
  // It may quote what could not be used.
  const problem = said.problem === undefined ? undefined : redactor.redact(said.problem).text;
  return { file, from, text, hidden: own, ...(problem !== undefined && { problem }) };
}

/** A value as indented JSON. */
export function json(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}

function inWords({ code, path, message }: NodeJS.ErrnoException): string {
  if (code === "ENOENT" && path !== undefined) return `there is no ${path}`;
  if (code === "EACCES" && path !== undefined) return `this user may not read ${path}`;
  return message;
}
