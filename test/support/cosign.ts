import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

interface Call {
  command: string;
  args: string[];
  env: NodeJS.ProcessEnv;
  /** The Docker configuration it found. */
  login: string;
  isFile: boolean;
}

/** A folder for PATH with the stand-in in it (cosign-stand-in.mjs), and what it shall answer. */
export function cosignStandIn() {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-cosign-"));
  const program = join(dir, "cosign");
  copyFileSync(join(import.meta.dirname, "cosign-stand-in.mjs"), join(dir, "cosign-stand-in.mjs"));
  writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${dir}/cosign-stand-in.mjs" "$@"\n`, { mode: 0o755 });
  // nvidia-smi's simulator and others start node by name.
  symlinkSync(process.execPath, join(dir, "node"));
  const calls = join(dir, "calls.jsonl");
  return {
    dir,
    path: `${dir}:/usr/bin:/bin`,
    /** Digests that each key, named by its path, has signed. */
    sign(keys: Record<string, string[]>, how?: "hang" | "flood") {
      writeFileSync(join(dir, "signed.json"), JSON.stringify({ ...keys, how }));
    },
    calls(): Call[] {
      if (!existsSync(calls)) return [];
      return readFileSync(calls, "utf8")
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Call);
    },
    [Symbol.dispose]: () => rmSync(dir, { recursive: true }),
  };
}
