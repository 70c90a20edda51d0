import type { Command } from "commander";
import { distribution, isPackageInstalled, startProgram } from "./installation.ts";
import { command, UsageError } from "./outcome.ts";
import { perform } from "./steps.ts";

export interface ServiceOptions {
  dryRun?: true;
  /** Folder that stands for "/": files are written under it, users and systemd are left alone. */
  prefix?: string;
  purge?: true;
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
    command(async (options: ServiceOptions) => {
      requireUsable("install", options);
      const { installSteps } = await import("./service-steps.ts");
      await perform(installSteps(options.prefix), { dryRun: options.dryRun === true });
    }),
  );
  each("uninstall", "stop and remove it; configuration, state and caches stay")
    .option("--purge", "remove those as well, and the user")
    .action(
      command(async (options: ServiceOptions) => {
        requireUsable("uninstall", options);
        const { uninstallSteps } = await import("./service-removal.ts");
        const steps = uninstallSteps(options.prefix, { purge: options.purge === true });
        await perform(steps, { dryRun: options.dryRun === true });
      }),
    );
  // For the package's own scripts: nobody else ends the service without "uninstall".
  service.command("cleanup", { hidden: true }).action(
    command(async () => {
      requireRoot("cleanup");
      const { cleanupSteps } = await import("./service-removal.ts");
      await perform(cleanupSteps({ caches: false }), { dryRun: false });
    }),
  );
}

function requireUsable(verb: "install" | "uninstall", { dryRun, prefix }: ServiceOptions): void {
  if (prefix?.startsWith("/") === false) throw new UsageError(`--prefix ${prefix}: expected an absolute path`);
  if (distribution() === "deb") {
    throw new Error(
      'this gpunode is the Debian package, which brings its service: "apt remove gpunode" takes it away, "apt purge gpunode" with configuration and state',
    );
  }
  if (isPackageInstalled(prefix)) {
    throw new Error(
      'this machine has the Debian package gpunode, which brings its service: use apt. To change to this one, run "apt remove gpunode" first: configuration, identity and state stay',
    );
  }
  if (dryRun !== true && prefix === undefined) requireRoot(verb);
}

function requireRoot(verb: string): void {
  if (process.getuid?.() === 0) return;
  const started = distribution() === "checkout" ? `${process.execPath} ${process.argv[1]}` : startProgram();
  throw new Error(`this needs root; run: sudo ${started} service ${verb}`);
}
