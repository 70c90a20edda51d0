import type { FactName, Missing } from "../check.ts";
import type { Facts } from "../facts.ts";
import type { Machine } from "../machine.ts";

/** What the readers stand on. */
export interface Doors {
  machine: Machine;
  env: NodeJS.ProcessEnv;
  /** Named by the user. */
  configFile?: string;
  /** Text of the unit this gpunode would install; absent where that is not to be compared. */
  expectedUnit?: string;
  /** Whether containers of the doctor's own may be started. */
  mayStartContainers: boolean;
  now(): number;
}

/** A fact gathered before; undefined where it is missing. */
export type Had = <N extends FactName>(name: N) => Facts[N] | undefined;

/** Gathers one fact. It may throw: then the fact is missing, with the error's message. */
export interface Reader<N extends FactName> {
  /** Facts it goes by. They are there before its own time begins. */
  after?: readonly FactName[];
  /** Then it is given up, the signal aborted, and the fact missing. */
  limitMs: number;
  read(doors: Doors, had: Had, signal: AbortSignal): Promise<Facts[N] | Missing> | Facts[N] | Missing;
}
