import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { text } from "node:stream/consumers";
import { onTestFinished } from "vitest";

export const root = resolve(import.meta.dirname, "../..");
export const node = join(root, "node_modules/.bin/node");

export interface Outcome {
  code: number | null;
  out: string;
  err: string;
}

/** A folder that is gone after the test. */
export function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-cli-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Starts a program that is gone after the test, without the GPUNODE_ variables of whoever runs the tests. */
export function start(program: string, args: string[], env: Record<string, string> = {}): ChildProcess {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("GPUNODE_"));
  const child = spawn(program, args, {
    cwd: root,
    // Tests run beside each other, and the page has one address.
    env: { ...Object.fromEntries(inherited), GPUNODE_METRICS_LISTEN: "off", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  });
  return child;
}

export async function outcome(child: ChildProcess): Promise<Outcome> {
  const [out, err, [code]] = await Promise.all([
    text(child.stdout as NodeJS.ReadableStream),
    text(child.stderr as NodeJS.ReadableStream),
    once(child, "exit") as Promise<[number | null]>,
  ]);
  return { code, out, err };
}

/** Runs the command from its sources; which of the two programs it is, bin/gpunode.js goes by the same. */
export function gpunode(args: string[], env: Record<string, string> = {}): Promise<Outcome> {
  const program = args[0] === "run" ? "src/cli/daemon-main.ts" : "src/cli/main.ts";
  return outcome(start(node, [program, ...args], env));
}
