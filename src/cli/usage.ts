import type { Command } from "commander";
import { energy, gpuHours, measured, mib } from "../local/in-words.ts";
import type { UsageSummary } from "../local/usage-summary.ts";
import { type AskOptions, daemonOf, withJson } from "./daemon-client.ts";
import { UNIT_MS } from "./length.ts";
import { command, EXIT, print, printJson, UsageError } from "./outcome.ts";
import { type Cell, optionsOf, paint, renderTable, type TableOptions } from "./table.ts";

export function registerUsage(program: Command): void {
  withJson(program.command("usage"))
    .description("GPU-hours and energy by day and workload, each record verified")
    .option("--since <when>", "so far back: 12h, 7d, 4w, or a date as 2026-11-01", "30d")
    .action(command(usage));
}

async function usage(options: AskOptions & { since: string }): Promise<void> {
  const sinceMs = instantOf(options.since, Date.now());
  const [{ publicKeyFrom }, { summarize }] = await Promise.all([
    import("../protocol/identity.ts"),
    import("../local/usage-summary.ts"),
  ]);
  const { node, records } = await (await daemonOf(options)).usage(sinceMs);
  const keys = [node, ...node.replaces].map(({ publicKey }) => publicKeyFrom(publicKey));
  const summary = await summarize(records, keys);
  if (options.json === true) printJson({ node, since: new Date(sinceMs).toISOString(), ...summary });
  else print(usageInWords(summary, { since: options.since, who: "this node" }, optionsOf(process.stdout)));
  if (summary.problems.length > 0) process.exitCode = EXIT.failed;
}

/** Milliseconds since the epoch. Throws `UsageError` where the text is neither a length nor a date. */
export function instantOf(text: string, now: number): number {
  const [, count, unit = ""] = /^(\d{1,5})([hdw])$/.exec(text) ?? [];
  if (count !== undefined) return Math.max(0, now - Number(count) * (UNIT_MS[unit] ?? 0));
  // A date alone is a day of the owner's; Date would take it for one of UTC.
  const at = Date.parse(/^\d{4}-\d{2}-\d{2}$/.test(text) ? `${text}T00:00:00` : text);
  if (Number.isNaN(at)) throw new UsageError(`--since ${text}: expected 12h, 7d, 4w or a date such as 2026-11-01`);
  return Math.max(0, at);
}

/** The table, the sum, and what does not verify. `who` signed the records. */
export function usageInWords(
  { days, total, problems }: UsageSummary,
  { since, who }: { since: string; who: string },
  options: TableOptions,
): string {
  if (days.length === 0) return `Nothing was used since ${since}.\n`;
  const rows = days.map((day): Cell[] => [
    day.day,
    day.workload,
    gpuHours(day.gpuSeconds),
    day.energyJoules === undefined ? "-" : energy(day.energyJoules),
    measured(day.gpuUtilizationMeanPercent, "%"),
    day.vramPeakMiB === undefined ? "-" : mib(day.vramPeakMiB),
    String(day.records),
    day.verified ? { text: "yes", style: "green" } : { text: "NO", style: "red" },
  ]);
  const table = renderTable(
    [
      { title: "DAY" },
      { title: "WORKLOAD", shrinks: true },
      { title: "GPU-HOURS", align: "right" },
      { title: "ENERGY", align: "right" },
      { title: "UTIL", align: "right" },
      { title: "VRAM PEAK", align: "right" },
      { title: "RECORDS", align: "right" },
      { title: "VERIFIED" },
    ],
    rows,
    options,
  );
  const sum = `\n${gpuHours(total.gpuSeconds)} GPU-hours and ${energy(total.energyJoules)} in ${total.records} records`;
  if (problems.length === 0) return `${table}${sum}, every one signed by ${who} and none missing.\n`;
  const faults = problems.map((problem) => `  ${problem}\n`).join("");
  return `${table}${sum}.\n${paint("Not verified", "red", options)}\n${faults}`;
}
