import type { Check, FactName, Judgement, Step, Verdict } from "./check.ts";
import { isMissing } from "./check.ts";
import type { Doors } from "./gather/reader.ts";
import { type GatherOptions, gather } from "./gather.ts";

/** Changes when a field is taken away or changes its meaning; new fields, checks and sentences may come at any time. */
export const DOCTOR_VERSION = 1;

/** What `gpunode doctor --json` prints. docs/doctor.md describes it. */
export interface Report {
  doctorVersion: typeof DOCTOR_VERSION;
  /** RFC 3339. */
  at: string;
  gpunodeVersion: string;
  machine: { hostname: string; os: string; kernel: string };
  counts: Record<Verdict, number>;
  checks: CheckReport[];
}

export interface CheckReport {
  /** Stable. */
  id: string;
  title: string;
  verdict: Verdict;
  found: string;
  why: string;
  /** What mends it, in this order. `text` of a command, shell line or file is what is to be typed on this machine. */
  fix: { kind: Step["kind"]; text: string }[];
  /** Whether `--fix` does it: `safe` always, `named` where the check is named. Absent: never. */
  fixable?: "safe" | "named";
}

/** A check with what it says of this machine. */
export interface Finding {
  check: Check;
  judgement: Judgement;
}

export interface Examination {
  findings: readonly Finding[];
  report: Report;
}

/** Gathers what these checks need, and judges. Never rejects. */
export async function examine(
  checks: readonly Check[],
  doors: Doors & { version: string },
  options: GatherOptions,
): Promise<Examination> {
  const names = new Set<FactName>(["system", ...checks.flatMap(({ facts }) => facts)]);
  const gathered = await gather([...names], doors, options);
  const findings = checks.map((check) => ({ check, judgement: check.judge(gathered) }));
  const { system } = gathered;
  const isKnown = system !== undefined && !isMissing(system);
  const counts: Record<Verdict, number> = { ok: 0, note: 0, warning: 0, failure: 0, skipped: 0 };
  for (const { judgement } of findings) counts[judgement.verdict] += 1;
  const report: Report = {
    doctorVersion: DOCTOR_VERSION,
    at: new Date(doors.now()).toISOString(),
    gpunodeVersion: doors.version,
    machine: {
      hostname: isKnown ? system.hostname : "",
      os: isKnown ? system.os.name : "",
      kernel: isKnown ? system.kernel : "",
    },
    counts,
    checks: findings.map((finding) => reported(finding, isKnown && system.isRoot)),
  };
  return { findings, report };
}

function reported({ check: { id, title, why }, judgement }: Finding, isRoot: boolean): CheckReport {
  const { verdict, found, fix = [], auto } = judgement;
  const steps = fix.map((step) => ({ kind: step.kind, text: stepInWords(step, isRoot) }));
  return { id, title, verdict, found, why: plain(why), fix: steps, ...(auto !== undefined && { fixable: auto }) };
}

/** docs/doctor.md is Markdown, a terminal is not. */
function plain(text: string): string {
  return text.replaceAll("`", "");
}

/** A step as its owner types it; root needs no sudo. */
export function stepInWords(step: Step, isRoot: boolean): string {
  const sudo = isRoot ? "" : "sudo ";
  switch (step.kind) {
    case "advice":
      return step.text;
    case "command":
      return sudo + step.argv.map(quoted).join(" ");
    case "shell":
      return isRoot ? step.text.replaceAll("sudo ", "") : step.text;
    case "write":
      return `printf '${escaped(step.text)}' | ${sudo}tee ${quoted(step.path)}`;
  }
}

/** A word for a POSIX shell. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** A text for printf(1), in one line and between single quotes. */
function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("%", "%%").replaceAll("\n", "\\n").replaceAll("'", "'\\''");
}
