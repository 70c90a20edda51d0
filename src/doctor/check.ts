import type { Facts } from "./facts.ts";

/** How one check ends. Only a `failure` makes the command fail; `skipped` says that it could not be judged here. */
export type Verdict = "ok" | "note" | "warning" | "failure" | "skipped";

/** One step of what mends a thing, in the order they are to be done. */
export type Step =
  /** For a person to read. */
  | { readonly kind: "advice"; readonly text: string }
  /** A program with its arguments, run as root. */
  | { readonly kind: "command"; readonly argv: readonly string[] }
  /** A line for a shell; never run by `--fix`. `sudo` stands in it where it is needed. */
  | { readonly kind: "shell"; readonly text: string }
  /** A file, written whole. */
  | { readonly kind: "write"; readonly path: string; readonly text: string; readonly mode: number };

/** What a check says of this machine. */
export interface Judgement {
  readonly verdict: Verdict;
  /** What was found, one sentence without its full stop. */
  readonly found: string;
  readonly fix?: readonly Step[];
  /**
   * Whether `--fix` does the steps that are commands and files: `safe` unasked, `named` only where the owner has named the check, since
   * it changes what the machine does for its owner. Absent: never.
   */
  readonly auto?: "safe" | "named";
}

/** A fact that could not be had, and why. */
export interface Missing {
  readonly missing: string;
}

export type FactName = keyof Facts;
type Known<N extends FactName> = { readonly [K in N]: Facts[K] };
type Maybe<N extends FactName> = { readonly [K in N]: Facts[K] | Missing };
/** What has been gathered; a fact that nobody asked for is not there. */
export type Gathered = Partial<Maybe<FactName>>;

/** One thing that may be wrong with this machine. docs/doctor.md is written from these. */
export interface Check {
  /** Stable: scripts name it. */
  readonly id: string;
  readonly title: string;
  /** What it looks at. */
  readonly looks: string;
  /** What comes of it where it is wrong. */
  readonly why: string;
  /** What mends it, in general; the exact command depends on the machine. */
  readonly mends: string;
  readonly facts: readonly FactName[];
  /** Pure: the same facts, the same judgement. `skipped` where a fact it cannot do without is missing. */
  judge(facts: Gathered): Judgement;
}

/** Makes a check. It is judged only with all it `needs`; what it `uses` may be missing. */
export function check<N extends FactName, U extends FactName = never>(definition: {
  id: string;
  title: string;
  looks: string;
  why: string;
  mends: string;
  needs: readonly N[];
  uses?: readonly U[];
  judge(facts: Known<N> & Maybe<U>): Judgement;
}): Check {
  const { needs, uses = [], judge, ...words } = definition;
  return {
    ...words,
    facts: [...needs, ...uses],
    judge(gathered) {
      for (const name of needs) {
        const fact = gathered[name];
        if (fact === undefined || isMissing(fact)) return skipped(fact?.missing ?? "it was not looked at");
      }
      const absent = uses.filter((name) => gathered[name] === undefined);
      const filled = Object.fromEntries(absent.map((name) => [name, { missing: "it was not looked at" }]));
      return judge({ ...gathered, ...filled } as unknown as Known<N> & Maybe<U>);
    },
  };
}

export function isMissing(fact: unknown): fact is Missing {
  return typeof fact === "object" && fact !== null && typeof (fact as Missing).missing === "string";
}

/** The fact, or undefined where it is missing. */
export function had<T>(fact: T | Missing): T | undefined {
  return isMissing(fact) ? undefined : fact;
}

export function ok(found: string): Judgement {
  return { verdict: "ok", found };
}

/** `why` it could not be judged. */
export function skipped(why: string): Judgement {
  return { verdict: "skipped", found: why };
}

/** The owner may want to know; nothing is wrong. */
export const note = judgement("note");
/** Something works less well than it could, or soon may not. */
export const warning = judgement("warning");
/** Work cannot be done rightly. */
export const failure = judgement("failure");

function judgement(verdict: Verdict) {
  return (found: string, fix: readonly Step[] = [], auto?: "safe" | "named"): Judgement => ({
    verdict,
    found,
    ...(fix.length > 0 && { fix }),
    ...(auto !== undefined && { auto }),
  });
}

export function advice(text: string): Step {
  return { kind: "advice", text };
}

export function command(...argv: readonly string[]): Step {
  return { kind: "command", argv };
}

export function shell(text: string): Step {
  return { kind: "shell", text };
}
