import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { text } from "node:stream/consumers";
import type { Key } from "../../config/key.ts";
import { envNameOf, KEYS, type KeyName } from "../../config/keys.ts";
import type { Secret } from "../../protocol/secret.ts";
import { UsageError } from "../outcome.ts";
import type { Terminal } from "../terminal.ts";

/** What enrolling takes; each from a flag, the environment, or somebody who is asked. */
export interface Answers {
  /** `wss://host[:port]`. */
  url: string;
  /** Unencrypted to another machine is allowed. */
  insecure: boolean;
  /** Absolute; undefined: the authorities of this machine. */
  caFile: string | undefined;
  /** undefined: it stays as it is. */
  proxy: string | undefined;
  /** undefined: the coordinator knows this node already, or admits everybody. */
  token: Secret | undefined;
  /** undefined: it stays as it is. */
  name: string | undefined;
}

/** An answer read, or what was wrong with it: a sentence without a full stop. */
export type Read<T> = { ok: true; value: T } | { ok: false; why: string };

/** Asks until the answer will do, each time with what was wrong with the last one. */
export async function askUntil<T>(
  terminal: Terminal,
  question: string,
  read: (answer: string) => Read<T>,
  options: { hidden?: boolean } = {},
): Promise<T> {
  for (;;) {
    const reading = read(await terminal.ask(question, options));
    if (reading.ok) return reading.value;
    process.stdout.write(`  That will not do: ${reading.why}.\n`);
  }
}

/** Yes or no; `fallback` is what Enter means. */
export async function confirm(terminal: Terminal, question: string, fallback: boolean): Promise<boolean> {
  return await askUntil(terminal, `${question} ${fallback ? "[Y/n]" : "[y/N]"} `, (answer) => {
    if (answer === "") return { ok: true, value: fallback };
    if (/^y(?:es)?$/i.test(answer)) return { ok: true, value: true };
    return /^no?$/i.test(answer) ? { ok: true, value: false } : { ok: false, why: 'answer "y" or "n"' };
  });
}

/** The value of a key of the configuration, held against its own kind. */
export function readKey<T>(key: KeyName, answer: string): Read<T> {
  const { kind } = KEYS[key] as Key<T>;
  const reading = kind.read(kind.fromText(answer));
  return reading.ok ? { ok: true, value: reading.value } : { ok: false, why: `expected ${reading.expected}` };
}

/** The value of a flag. Throws `UsageError`. */
export function flagValue<T>(flag: string, key: KeyName, answer: string): T {
  const reading = readKey<T>(key, answer);
  if (reading.ok) return reading.value;
  const shown = KEYS[key].kind.secret === true ? "the value" : answer;
  throw new UsageError(`${flag} ${shown}: ${reading.why}`);
}

/** The coordinator's address as somebody types it: without a scheme it is the usual one. */
export function readUrl(answer: string): Read<string> {
  return readKey("coordinator.url", answer === "" || answer.includes("://") ? answer : `wss://${answer}`);
}

/** A path as a shell gives it, made absolute. */
export function readPath(answer: string): Read<string> {
  return answer === "" ? { ok: false, why: "expected a path" } : { ok: true, value: resolve(answer) };
}

/** One word. What was wrong with another is said without quoting it. */
export function readToken(answer: string): Read<Secret> {
  const token = answer.trim();
  if (token === "") return { ok: false, why: "it is empty" };
  if (/\s/.test(token)) return { ok: false, why: "it must be one token and nothing else" };
  return readKey("coordinator.join_token", token);
}

/** A token that is not shown while it is typed; undefined for Enter. */
export async function askToken(terminal: Terminal, question: string): Promise<Secret | undefined> {
  const read = (answer: string): Read<Secret | undefined> =>
    answer === "" ? { ok: true, value: undefined } : readToken(answer);
  return await askUntil(terminal, question, read, { hidden: true });
}

/** Where the token comes from without anybody being asked. */
export interface TokenSources {
  tokenFile?: string;
  tokenStdin?: true;
  withoutToken?: true;
}

/** More than any token has; what is longer is another file. */
const MOST_TOKEN_BYTES = 16 * 1024;

/** The token of a flag or the environment; "ask" where neither has one. Throws with a sentence where what is there is none. */
export async function givenToken(
  { tokenFile, tokenStdin, withoutToken }: TokenSources,
  env: NodeJS.ProcessEnv,
  input: NodeJS.ReadStream,
): Promise<Secret | undefined | "ask"> {
  if ([tokenFile, tokenStdin, withoutToken].filter((source) => source !== undefined).length > 1) {
    throw new UsageError("give one of --token-file, --token-stdin and --without-token");
  }
  if (withoutToken === true) return undefined;
  if (tokenFile !== undefined) return tokenOf(`--token-file ${tokenFile}`, readFileSync(tokenFile, "utf8"));
  // At a terminal it is typed, and then better not shown.
  if (tokenStdin === true && !input.isTTY) return tokenOf("--token-stdin", await text(input));
  const fromEnv = env[envNameOf("coordinator.join_token")];
  if (fromEnv) return tokenOf(envNameOf("coordinator.join_token"), fromEnv);
  return "ask";
}

function tokenOf(source: string, contents: string): Secret {
  const reading =
    contents.length > MOST_TOKEN_BYTES ? { ok: false as const, why: "it is too long" } : readToken(contents);
  if (reading.ok) return reading.value;
  throw new Error(`${source} holds no join token: ${reading.why}`);
}
