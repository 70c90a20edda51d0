import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";

/**
 * Secrets nobody else has. Each has a core of 16 letters that no encoding of text breaks up, so that it is found whatever was
 * escaped around it.
 */
export class Canaries {
  readonly #cores = new Map<string, string>();

  /** A secret with `around` it; without it one for places that take no odd characters. */
  plant(name: string, around = (core: string) => `x${core}y`): string {
    const core = randomBytes(8)
      .toString("hex")
      .replace(/\d/g, (digit) => "ghijklmnop"[Number(digit)] ?? "");
    this.#cores.set(name, core);
    return around(core);
  }

  /** What to search for: the core as it is, in base64 at each of three offsets, and in hexadecimal. */
  forms(): { name: string; form: string }[] {
    return [...this.#cores].flatMap(([name, core]) => {
      const base64 = [0, 1, 2].map((offset) => {
        const bytes = Buffer.concat([Buffer.alloc(offset), Buffer.from(core)]);
        return bytes.toString("base64").slice(offset === 0 ? 0 : offset + 1, Math.floor((bytes.length * 8) / 6));
      });
      return [core, ...base64, Buffer.from(core).toString("hex")].map((form) => ({ name, form }));
    });
  }

  /** Names of the secrets that are in a text, in whatever form. */
  in(text: string): string[] {
    return [...new Set(this.forms().flatMap(({ name, form }) => (text.includes(form) ? [name] : [])))];
  }

  /** Files below a folder that hold one of them, bytes and all, but for those that were not written since `marker` was. */
  filesIn(dir: string, marker?: string): string[] {
    const patterns = this.forms().flatMap(({ form }) => ["-e", form]);
    const newer = marker === undefined ? [] : ["-newer", marker];
    const args = [dir, "-xdev", "-type", "f", "-size", "-30M", ...newer];
    const { stdout } = spawnSync("find", [...args, "-exec", "grep", "-laF", ...patterns, "{}", "+"]);
    return stdout.toString().split("\n").filter(Boolean);
  }
}

/** Where temporary files go. */
export const TEMPORARY = tmpdir();

/** A process and all that came from it: command lines and environments, as `/proc` shows them. */
export function processTree(pid: number): { commandLines: string; environments: string } {
  const parents = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => [Number(name), Number(/^\d+ \(.*\) \S (\d+)/s.exec(read(name, "stat"))?.[1])] as const);
  const tree = [pid];
  for (const one of tree) tree.push(...parents.filter(([, parent]) => parent === one).map(([child]) => child));
  return {
    commandLines: tree.map((one) => read(String(one), "cmdline")).join("\n"),
    environments: tree.map((one) => read(String(one), "environ")).join("\n"),
  };
}

/** "" where it is gone meanwhile. */
function read(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch {
    return "";
  }
}
