import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { Step } from "./check.ts";
import type { Machine } from "./machine.ts";
import type { Finding } from "./report.ts";
import { stepInWords } from "./report.ts";

/** What became of mending one thing. */
export interface Mended {
  id: string;
  /** Absent where all steps were done. */
  problem?: string;
}

/** A service that is started again may take its time to stop. */
const COMMAND_MS = 120_000;

/** Findings that `--fix` does something about; `named`: ids that the owner has named. */
export function mendable(findings: readonly Finding[], named: ReadonlySet<string>): Finding[] {
  return findings.filter(
    ({ check, judgement: { auto } }) => auto === "safe" || (auto === "named" && named.has(check.id)),
  );
}

/**
 * Does the commands and files of each finding, in their order, and announces each before. A step that fails ends the steps of its
 * finding, not of the others. Advice is for people and left out.
 */
export async function mend(
  findings: readonly Finding[],
  { machine, say, signal }: { machine: Machine; say(line: string): void; signal: AbortSignal },
): Promise<Mended[]> {
  const outcomes: Mended[] = [];
  for (const { check, judgement } of findings) {
    let problem: string | undefined;
    for (const step of judgement.fix ?? []) {
      if (problem !== undefined || signal.aborted) break;
      if (step.kind !== "command" && step.kind !== "write") continue;
      say(`${check.id}: ${stepInWords(step, true)}`);
      problem = await take(step, machine, signal);
      if (problem !== undefined) say(`${check.id}: that did not work: ${problem}`);
    }
    outcomes.push({ id: check.id, ...(problem !== undefined && { problem }) });
  }
  return outcomes;
}

/** Why it could not be done; undefined where it was. */
async function take(step: Step, machine: Machine, signal: AbortSignal): Promise<string | undefined> {
  if (step.kind === "write") return write(machine.at(step.path), step.text, step.mode);
  if (step.kind !== "command") return undefined;
  const ran = await machine.run(step.argv, { timeoutMs: COMMAND_MS, signal });
  if ("problem" in ran) return ran.problem;
  if (ran.code === 0) return undefined;
  const words = `${ran.stderr}\n${ran.stdout}`.split("\n").find((line) => line.trim() !== "");
  return words?.trim() ?? `exit code ${ran.code}`;
}

function write(path: string, text: string, mode: number): string | undefined {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    writeFileSync(path, text, { mode });
    // The mode above is for a new file, and less the umask.
    chmodSync(path, mode);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
