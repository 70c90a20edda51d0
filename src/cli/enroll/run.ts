import type { Terminal } from "../terminal.ts";
import type { Place } from "./place.ts";

export interface JoinOptions {
  config?: string;
  coordinator?: string;
  tokenFile?: string;
  tokenStdin?: true;
  withoutToken?: true;
  name?: string;
  caFile?: string;
  proxy?: string;
  insecure?: true;
  yes?: true;
  dryRun?: true;
  /** False: the coordinator is not looked at first. */
  check: boolean;
  /** How long to wait until it is connected; seconds. */
  waitSeconds: number;
}

/** One enrolment under way. */
export interface Run {
  options: JoinOptions;
  place: Place;
  /** undefined where nobody can be asked, or nobody is to be. */
  terminal: Terminal | undefined;
  signal: AbortSignal;
}

export function say(text: string): void {
  process.stdout.write(text);
}
