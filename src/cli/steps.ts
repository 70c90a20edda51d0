import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { print } from "./outcome.ts";

/** One thing a command does to this machine, and the sentence that announces it. */
export interface Step {
  says: string;
  /** Resolves to a line about what came of it, where there is something to say. */
  // biome-ignore lint/suspicious/noConfusingVoidType: most have nothing to say
  run(): void | Promise<string | void>;
}

/** Announces each step and does it; with `dryRun` only announces. */
export async function perform(steps: readonly Step[], { dryRun }: { dryRun: boolean }): Promise<void> {
  for (const { says, run } of steps) {
    print(`${dryRun ? "would: " : ""}${says}\n`);
    const outcome = dryRun ? undefined : await run();
    if (outcome !== undefined) print(`  ${outcome}\n`);
  }
}

/** Runs a program; its output is the user's to see. */
export function run(program: string, ...args: string[]): Step {
  return {
    says: [program, ...args].join(" "),
    run() {
      execFileSync(program, args, { stdio: ["ignore", "inherit", "inherit"] });
    },
  };
}

/** A sentence alone. */
export function note(says: string): Step {
  return { says, run() {} };
}

/** True where systemd is process 1, as sd_booted(3) tells. */
export function systemdRuns(): boolean {
  return existsSync("/run/systemd/system");
}
