import type { Command } from "commander";
import { command, print, UsageError } from "./outcome.ts";

export interface ServiceOptions {
  dryRun?: true;
  /** Folder that stands for "/": files are written under it, users and systemd are left alone. */
  prefix?: string;
}

export function registerService(program: Command): void {
  const service = program.command("service").description("run gpunode as a systemd service");
  const each = (name: string, description: string) =>
    service
      .command(name)
      .description(description)
      .option("--dry-run", "say what would be done, and do nothing")
      .option("--prefix <dir>", "write under this folder instead of /, without touching users and systemd");
  each("install", "write the unit, create its user, enable and start it; may be repeated").action(
    command(async (options: ServiceOptions) => perform("install", options)),
  );
  each("uninstall", "stop and remove it; configuration and state stay").action(
    command(async (options: ServiceOptions) => perform("uninstall", options)),
  );
}

async function perform(verb: "install" | "uninstall", options: ServiceOptions): Promise<void> {
  const { dryRun, prefix } = options;
  if (prefix?.startsWith("/") === false) throw new UsageError(`--prefix ${prefix}: expected an absolute path`);
  if (process.getuid?.() !== 0 && dryRun !== true && prefix === undefined) {
    throw new Error(`this needs root; run: sudo ${process.execPath} ${process.argv[1]} service ${verb}`);
  }
  const { installSteps, uninstallSteps } = await import("./service-steps.ts");
  const steps = verb === "install" ? installSteps(prefix) : uninstallSteps(prefix);
  for (const { says, run } of steps) {
    print(`${dryRun === true ? "would: " : ""}${says}\n`);
    if (dryRun !== true) run();
  }
}
