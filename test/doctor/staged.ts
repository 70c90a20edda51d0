import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { onTestFinished } from "vitest";
import { CHECKS } from "../../src/doctor/checks.ts";
import type { Doors } from "../../src/doctor/gather/reader.ts";
import { createMachine, type Ran } from "../../src/doctor/machine.ts";
import { examine, type Report } from "../../src/doctor/report.ts";

const simulator = resolve(import.meta.dirname, "../../bin/nvidia-smi-sim.js");

/** A file's text, `{ link }` for a link, `{ program }` for an executable. */
export type Entry = string | { link: string } | { program: string };

export interface Staged {
  root: string;
  /** What programs were run. */
  ran: string[][];
  doors: Doors & { version: string };
}

export interface StageOptions {
  files: Record<string, Entry>;
  /** What programs say, by their command line. Others are not installed. */
  says?: Record<string, Ran>;
  /** Of the simulator, which then plays a real nvidia-smi; without it there is none. */
  scenario?: string;
  /** Lines of the configuration. */
  config?: string;
}

/** A folder that stands for a machine's "/"; gone after the test. */
export function stage({ files, says = {}, scenario, config = "" }: StageOptions): Staged {
  const root = mkdtempSync(join(tmpdir(), "gpunode-doc-"));
  onTestFinished(() => rmSync(root, { recursive: true, force: true }));
  for (const [path, entry] of Object.entries(files)) put(join(root, path), entry);
  const smi = join(root, "bin/nvidia-smi");
  // Not by its own name, which would tell that all is simulated.
  if (scenario !== undefined) put(smi, { program: `exec "${process.execPath}" "${simulator}" "$@"` });
  const configFile = join(root, "config.toml");
  writeFileSync(configFile, `nvidia = { smi = "${smi}", kernel_log = "/var/log/kern.log" }\n${config}`, {
    mode: 0o640,
  });
  const ran: string[][] = [];
  const machine = createMachine({
    root,
    run: (argv) => {
      ran.push([...argv]);
      return Promise.resolve(says[argv.join(" ")] ?? { problem: `${argv[0]} is not installed` });
    },
  });
  const env = { PATH: process.env.PATH, HOME: root, ...(scenario !== undefined && { GPUNODE_SIM_SCENARIO: scenario }) };
  return {
    root,
    ran,
    doors: { machine, env, configFile, mayStartContainers: false, now: Date.now, version: "0.1.0" },
  };
}

function put(path: string, entry: Entry): void {
  mkdirSync(dirname(path), { recursive: true });
  if (typeof entry === "string") writeFileSync(path, entry);
  else if ("link" in entry) symlinkSync(entry.link, path);
  else {
    writeFileSync(path, `#!/bin/sh\n${entry.program}\n`);
    chmodSync(path, 0o755);
  }
}

/** The report of a staged machine, and one check's entry by its id. */
export async function lookOver({ doors }: Staged): Promise<{ report: Report; of(id: string): string }> {
  const { report } = await examine(CHECKS, doors, { signal: new AbortController().signal });
  return {
    report,
    of(id) {
      const found = report.checks.find((check) => check.id === id);
      return `${found?.verdict}: ${found?.found}`;
    },
  };
}

/** A stanza of /var/lib/dpkg/status. */
export function stanza(name: string, status = "install ok installed"): string {
  return `Package: ${name}\nStatus: ${status}\nPriority: optional\nArchitecture: amd64\nVersion: 535.247.01-1~deb12u1\n`;
}
