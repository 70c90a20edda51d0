import { execFile } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";

/** What a file is, to those who may or may not use it. */
export interface FileLook {
  readonly uid: number;
  readonly gid: number;
  /** Permission bits. */
  readonly mode: number;
  readonly kind: "file" | "folder" | "socket" | "device" | "other";
  /** Of a device: its numbers. */
  readonly device?: { readonly major: number; readonly minor: number };
  /** When its content or its name last changed, milliseconds since the epoch. */
  readonly changedAtMs: number;
}

/** What a program came to; `problem` where it could not be run, or did not end in time. */
export type Ran =
  | { readonly code: number; readonly stdout: string; readonly stderr: string }
  | { readonly problem: string };

export type RunProgram = (argv: readonly string[], options: { timeoutMs: number; signal: AbortSignal }) => Promise<Ran>;

/** The machine as the doctor reads it: its files and its programs. No method throws. */
export interface Machine {
  /** Where a path of the machine is for this process. */
  at(path: string): string;
  /** undefined where it is not there or may not be read. */
  text(path: string): string | undefined;
  /** Names in a folder, sorted; [] where there is none. */
  names(path: string): string[];
  /** Follows links; undefined where there is nothing. */
  look(path: string): FileLook | undefined;
  /** Where a link leads, as it is written. */
  link(path: string): string | undefined;
  /** Absolute path of a program, as the system's own programs find it. */
  program(name: string): string | undefined;
  run: RunProgram;
}

/** systemd's own PATH, which services like dockerd have; the last ones are where NixOS and CUDA's own installer put things. */
const FOLDERS = [
  ...["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"],
  ...["/run/current-system/sw/bin", "/usr/local/nvidia/bin"],
];
const OUTPUT_MAX_BYTES = 4 * 1024 * 1024;

/** `root` stands for "/", and `run` for the machine's programs: a test has them staged. */
export function createMachine({ root = "", run = runProgram }: { root?: string; run?: RunProgram } = {}): Machine {
  const folders = root === "" ? [...FOLDERS, ...(process.env.PATH ?? "").split(delimiter).filter(isAbsolute)] : FOLDERS;
  const at = (path: string) => (root === "" ? path : join(root, path));
  const machine: Machine = {
    at,
    text: (path) => attempt(() => readFileSync(at(path), "utf8")),
    names: (path) => attempt(() => readdirSync(at(path)).sort()) ?? [],
    look: (path) => lookAt(at(path)),
    link: (path) => attempt(() => readlinkSync(at(path))),
    program: (name) =>
      folders
        .map((folder) => join(folder, name))
        .find((path) => {
          const look = machine.look(path);
          return look?.kind === "file" && (look.mode & 0o111) !== 0;
        }),
    run,
  };
  return machine;
}

/** Runs a program in the language of its manual; killed when the time is over or the signal aborted. Never rejects. */
export const runProgram: RunProgram = (argv, { timeoutMs, signal }) =>
  new Promise((resolve) => {
    const [file = "", ...args] = argv;
    const env = { ...process.env, PATH: [process.env.PATH, ...FOLDERS].join(":"), LC_ALL: "C" };
    const options = { env, timeout: timeoutMs, killSignal: "SIGKILL" as const, maxBuffer: OUTPUT_MAX_BYTES, signal };
    const child = execFile(file, args, options, (error, stdout, stderr) => {
      if (error === null) resolve({ code: 0, stdout, stderr });
      else if (typeof error.code === "number") resolve({ code: error.code, stdout, stderr });
      else if (error.code === "ENOENT") resolve({ problem: `${file} is not installed` });
      else if (error.killed === true || signal.aborted)
        resolve({ problem: `${file} did not answer within ${timeoutMs / 1000} s` });
      else resolve({ problem: `${file} could not be run: ${error.message.split("\n")[0] ?? ""}` });
    });
    child.stdin?.on("error", () => undefined);
    child.stdin?.end();
  });

/** The file that a path of this process leads to; undefined where there is none. */
export function lookAt(path: string): FileLook | undefined {
  const stat = attempt(() => statSync(path));
  if (stat === undefined) return undefined;
  const isDevice = stat.isCharacterDevice() || stat.isBlockDevice();
  const kind = stat.isFile() ? "file" : stat.isDirectory() ? "folder" : stat.isSocket() ? "socket" : "other";
  return {
    uid: stat.uid,
    gid: stat.gid,
    mode: stat.mode & 0o7777,
    kind: isDevice ? "device" : kind,
    ...(isDevice && { device: deviceNumbers(stat.rdev) }),
    changedAtMs: stat.ctimeMs,
  };
}

/** gnu_dev_major and gnu_dev_minor of glibc, for the numbers in use. */
function deviceNumbers(rdev: number): { major: number; minor: number } {
  return { major: (rdev >>> 8) & 0xfff, minor: (rdev & 0xff) | ((rdev >>> 12) & 0xfff00) };
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
