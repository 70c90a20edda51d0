import type { Command } from "commander";
import type { Check } from "../doctor/check.ts";
import type { Report } from "../doctor/report.ts";
import { type AskOptions, withJson } from "./daemon-client.ts";
import { command, EXIT, print, printJson, UsageError } from "./outcome.ts";
import { optionsOf } from "./table.ts";
import { gpunodeVersion } from "./version.ts";

interface DoctorOptions extends AskOptions {
  fix?: true;
  verbose?: true;
  /** False with --no-containers. */
  containers: boolean;
}

export function registerDoctor(program: Command): void {
  withJson(program.command("doctor"))
    .description("look this machine over: what may be wrong, why it matters, what mends it")
    .argument("[check...]", "only these checks (docs/doctor.md lists them)")
    .option("--fix", "mend what is safe to mend, and what is named; each step is told before it is done")
    .option("--verbose", "also tell of what is well")
    .option("--no-containers", "start no test container")
    .addHelpText("after", "\nExit codes: 0 no failure, 1 a failure. Warnings do not count.")
    .action(command(doctor));
}

async function doctor(ids: string[], options: DoctorOptions): Promise<void> {
  const [{ CHECKS }, { examine }, { createMachine }, { unitTemplate }] = await Promise.all([
    import("../doctor/checks.ts"),
    import("../doctor/report.ts"),
    import("../doctor/machine.ts"),
    import("./service-steps.ts"),
  ]);
  const checks = await chosen(ids, CHECKS);
  const stop = new AbortController();
  const end = () => stop.abort();
  process.once("SIGINT", end).once("SIGTERM", end);
  const machine = createMachine();
  const { config: configFile } = options;
  const doors = {
    machine,
    env: process.env,
    ...(configFile !== undefined && { configFile }),
    expectedUnit: unitTemplate(),
    mayStartContainers: options.containers,
    now: Date.now,
    version: gpunodeVersion(),
  };
  const progress = progressOn(process.stderr);
  const look = async (wanted: readonly Check[]) => {
    try {
      return await examine(wanted, doors, { signal: stop.signal, onProgress: progress.show });
    } finally {
      progress.clear();
    }
  };
  try {
    let { findings, report } = await look(checks);
    stop.signal.throwIfAborted();
    if (options.fix === true) {
      const { mend, mendable } = await import("../doctor/mend.ts");
      const todo = mendable(findings, new Set(ids));
      if (todo.length > 0 && process.geteuid?.() !== 0) {
        throw new Error(`--fix needs root; run: ${asRoot()} --fix${ids.map((id) => ` ${id}`).join("")}`);
      }
      // With --json stdout holds the report and nothing else.
      const say = (line: string) => (options.json === true ? process.stderr : process.stdout).write(`${line}\n`);
      await mend(todo, { machine, say, signal: stop.signal });
      stop.signal.throwIfAborted();
      if (todo.length === 0) say("There is nothing to mend that is safe to mend.");
      else {
        say("");
        report = merged(report, (await look(todo.map(({ check }) => check))).report);
      }
    }
    await tell(report, options);
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    throw new Error("interrupted", { cause: error });
  } finally {
    process.off("SIGINT", end).off("SIGTERM", end);
  }
}

async function tell(report: Report, options: DoctorOptions): Promise<void> {
  if (options.json === true) printJson(report);
  else {
    const { doctorInWords } = await import("./doctor-view.ts");
    print(
      doctorInWords(report, { ...optionsOf(process.stdout), verbose: options.verbose === true, command: asRoot() }),
    );
  }
  if (report.counts.failure > 0) process.exitCode = EXIT.failed;
}

async function chosen(ids: readonly string[], checks: readonly Check[]): Promise<readonly Check[]> {
  for (const id of ids) {
    if (checks.some((check) => check.id === id)) continue;
    const { nearest } = await import("../config/nearest.ts");
    const meant = nearest(
      id,
      checks.map((check) => check.id),
    );
    throw new UsageError(
      `there is no check "${id}"${meant === undefined ? "" : `; did you mean "${meant}"?`} "gpunode doctor --verbose" shows them all.`,
    );
  }
  return ids.length === 0 ? checks : checks.filter(({ id }) => ids.includes(id));
}

/** The first report, with what has been looked at again since. */
function merged(before: Report, after: Report): Report {
  const checks = before.checks.map((check) => after.checks.find(({ id }) => id === check.id) ?? check);
  const counts = { ok: 0, note: 0, warning: 0, failure: 0, skipped: 0 };
  for (const { verdict } of checks) counts[verdict] += 1;
  return { ...after, counts, checks };
}

/** How this command is called with root's rights: Node may not be in root's PATH, but "gpunode" is where a package put it. */
function asRoot(): string {
  return process.geteuid?.() === 0 ? "gpunode doctor" : "sudo gpunode doctor";
}

/** One line that is overwritten, where somebody watches. */
function progressOn(stream: NodeJS.WriteStream): { show(done: number, all: number): void; clear(): void } {
  if (!stream.isTTY) return { show() {}, clear() {} };
  return {
    show: (done, all) => void stream.write(`\rlooking: ${done} of ${all} …\x1b[K`),
    clear: () => void stream.write("\r\x1b[K"),
  };
}
