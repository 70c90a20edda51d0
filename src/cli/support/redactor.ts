import { HIDDEN, hiding } from "../../protocol/secret.ts";

/** What was hidden in one file, by kind. */
export type Hidden = Record<string, number>;

/** Takes secrets out of what is to be given away. */
export interface Redactor {
  /** A secret that is known by its value: hidden wherever it appears, encoded too. */
  know(kind: string, value: string | undefined): void;
  redact(text: string): { text: string; hidden: Hidden };
}

/** A secret of fewer characters stands in every other sentence. */
const SHORTEST = 6;

/**
 * What looks like a secret whoever wrote it. The first group of each, where it has one, stays. None may need more than linear time: what they read
 * comes from containers and programs.
 */
const LOOKS: readonly { kind: string; pattern: RegExp }[] = [
  {
    kind: "private key",
    pattern: /-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?/g,
  },
  { kind: "login in an address", pattern: /(\b[a-z][a-z0-9+.-]{0,20}:\/\/)[^\s/@"'<>\\]{1,500}@/gi },
  {
    kind: "login of a request",
    pattern: /(\b(?:proxy-)?authorization["']?\s?[:=]\s?["']?)(?:(?:bearer|basic|digest|token) )?[^\s"',;]+/gi,
  },
  { kind: "login of a request", pattern: /(\bx-registry-(?:auth|config)["']?\s?[:=]\s?["']?)[^\s"',;]+/gi },
  { kind: "login of a request", pattern: /(\bbearer )[a-z0-9._~+/=-]{8,}/gi },
  { kind: "token", pattern: /\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*/g },
  { kind: "token", pattern: /\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|sk-|nvapi-)[\w-]{16,}/g },
  { kind: "token", pattern: /\bAKIA[0-9A-Z]{16}\b/g },
  // --token x, --password=x; not --token-file /x
  {
    kind: "secret of a command line",
    pattern: /(--?(?:[a-z]+-)*(?:token|password|passwd|secret|api-?key)[= ])(?![/-])[^\s"',]+/gi,
  },
  // API_TOKEN=x, password: x, "authToken": "x"; not join_token_file = "/x", nor numbers and truth values
  {
    kind: "value of a name like a secret's",
    pattern:
      /(\b[\w.-]{0,60}(?:token|password|passwd|secret|api_?key|access_?key|private_?key|credentials?)["']?\s{0,3}[=:]\s{0,3}["']?)(?!\/|\[hidden|\[\]|\{|true\b|false\b|null\b|none\b|undefined\b|\d{1,6}(?:\W|$))[^\s"',;]+/gi,
  },
  { kind: "secret of a mount", pattern: /((?:^|,)(?:password|pass|credentials?)=)[^\s,]+/gm },
];

export function createRedactor(): Redactor {
  const known = new Map<string, Set<string>>();
  return {
    know(kind, value) {
      if (value === undefined || value.length < SHORTEST) return;
      const values = known.get(kind) ?? new Set();
      known.set(kind, values.add(value));
    },
    redact(text) {
      const hidden: Hidden = {};
      const count = (kind: string, times: number) => {
        if (times > 0) hidden[kind] = (hidden[kind] ?? 0) + times;
      };
      let rest = text;
      for (const [kind, values] of known) {
        const before = occurrences(rest);
        rest = hiding([...values])(rest);
        count(kind, occurrences(rest) - before);
      }
      for (const { kind, pattern } of LOOKS) {
        rest = rest.replace(pattern, (_whole, ...groups: unknown[]) => {
          count(kind, 1);
          const [kept] = groups;
          return `${typeof kept === "string" ? kept : ""}${HIDDEN}${kind === "login in an address" ? "@" : ""}`;
        });
      }
      return { text: rest, hidden };
    },
  };
}

function occurrences(text: string): number {
  return text.split(HIDDEN).length - 1;
}
