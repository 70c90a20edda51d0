import type { Command } from "commander";
import type { CoordinatorClient } from "../coordinator/client.ts";
import { print, printJson, wholeNumber } from "./outcome.ts";

/** What the commands that ask a coordinator share. */

/** What `asking` adds, as commander hands it over. */
export interface ClientOptions {
  coordinator: string;
  apiTokenFile?: string;
  json?: true;
}
export type GraceOptions = ClientOptions & { graceSeconds?: string };

/** Options of every command that asks a coordinator. */
export function asking(command: Command): Command {
  return command
    .option(
      "--coordinator <url>",
      "its HTTP API (env GPUNODE_COORDINATOR_API)",
      process.env.GPUNODE_COORDINATOR_API ?? "http://127.0.0.1:7800",
    )
    .option("--api-token-file <file>", "bearer token, where it asks for one (env GPUNODE_COORDINATOR_API_TOKEN)")
    .option("--json", "print JSON");
}

/** Loads the client only now: other commands must not pay for it. */
export async function clientFor(options: ClientOptions): Promise<CoordinatorClient> {
  const { CoordinatorClient } = await import("../coordinator/client.ts");
  const [fromFile] = options.apiTokenFile === undefined ? [] : await tokensIn(options.apiTokenFile);
  const token = fromFile ?? process.env.GPUNODE_COORDINATOR_API_TOKEN;
  return new CoordinatorClient(options.coordinator, token === undefined ? {} : { token });
}

/** Tokens of a file, one a line. Throws where there is none. */
export async function tokensIn(file: string): Promise<string[]> {
  const { readFile } = await import("node:fs/promises");
  const tokens = (await readFile(file, "utf8"))
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
  if (tokens.length === 0) throw new Error(`${file} has no token in it`);
  return tokens;
}

export function graceOf({ graceSeconds }: GraceOptions): { graceSeconds?: number } {
  return graceSeconds === undefined ? {} : { graceSeconds: wholeNumber("--grace-seconds", graceSeconds) };
}

/** The value with `--json`, else the sentence. */
export function say(options: ClientOptions, value: unknown, sentence: string): void {
  if (options.json === true) printJson(value);
  else print(`${sentence}\n`);
}
