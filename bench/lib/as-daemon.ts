import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/**
 * Figures of what runs in the daemon are taken as it runs there: in a process with its V8 flags, which compile less. A module says what
 * it measures with `measuredAsDaemon`, and is then its own program: `node FLAGS module.ts NAME JSON` prints one number.
 */
export function asDaemon(module: string, name: string, input: unknown): number {
  const args = [...daemonFlags(), fileURLToPath(module), name, JSON.stringify(input)];
  const answer = execFileSync(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] }).toString();
  return Number(answer);
}

/** To be called at the end of a module whose parts `asDaemon` measures. */
export async function measuredAsDaemon(
  module: string,
  parts: Record<string, (input: never) => number | Promise<number>>,
): Promise<void> {
  const [, program, name = "", input = "null"] = process.argv;
  if (program !== fileURLToPath(module)) return;
  const part = parts[name];
  if (part === undefined) throw new Error(`${program} measures no "${name}"`);
  process.stdout.write(String(await part(JSON.parse(input) as never)));
}

/** As bin/gpunode.js sets them. */
function daemonFlags(): string[] {
  const launcher = readFileSync(join(import.meta.dirname, "../../bin/gpunode.js"), "utf8");
  const list = /const DAEMON_FLAGS = (\[[^\]]*\]);/.exec(launcher)?.[1];
  if (list === undefined) throw new Error("bin/gpunode.js does not say which V8 flags the daemon has");
  return JSON.parse(list) as string[];
}
