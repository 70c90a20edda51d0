import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, rmdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { removeCgroup } from "../../src/demo/engine-teardown.ts";
import { debianRoot, debianSuite } from "./debian-root.ts";

/*
 * A Debian machine with systemd as its process 1, booted by systemd-nspawn from a root file system that stays as it is
 * (`--volatile=overlay`): each boot is a fresh one. It shares the network of the test, so a coordinator on loopback is reached
 * from both sides. Where the test's process dies, the kernel ends the machine with it.
 */

const CACHE_DIR = resolve(import.meta.dirname, "../../node_modules/.cache/gpunode-testbed");
const PREFIX = "gpunode-systemd-";
/** Half a second on an idle machine. */
const BOOT_TIMEOUT_MS = 60_000;
const EXEC_TIMEOUT_MS = 120_000;
/** nspawn leaves these behind, empty; children before their parents. */
const NSPAWN_FOLDERS = [
  ...["/run/systemd/nspawn/unix-export", "/run/systemd/nspawn/propagate", "/run/systemd/nspawn/locks"],
  ...["/run/systemd/nspawn", "/run/systemd"],
];

/** Why this machine cannot boot one; undefined where it can. */
const missing =
  process.geteuid?.() !== 0
    ? "it takes root"
    : debianSuite() === undefined
      ? "it takes Debian's or Ubuntu's packages"
      : systemdHierarchies().length === 0
        ? "systemd's cgroup hierarchy is not mounted"
        : undefined;

/** For `describe.runIf`: false only where this machine cannot boot one, which is then said in one line. */
export const canBootSystemd = missing === undefined;
if (missing !== undefined) console.warn(`Tests on a booted systemd do not run: ${missing}.`);

export interface Bind {
  from: string;
  /** Where it is inside. */
  to: string;
  writable?: true;
}

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

export interface BootedSystemd extends AsyncDisposable {
  /** Runs a program inside, as root; throws where it fails. Returns what it printed, without the last line's end. */
  run(program: string, ...args: string[]): Promise<string>;
  /** The same, whatever comes of it. */
  attempt(program: string, ...args: string[]): Promise<Outcome>;
  /** The command line that runs a program inside, for who wants more of it than its end: a terminal, its output as it comes. */
  commandLine(program: string, ...args: string[]): string[];
  /** Writes a file inside, with its folders, readable by all. */
  write(path: string, text: string): Promise<void>;
  /** Resolves when the machine is off: by `systemctl poweroff`, for one. */
  readonly off: Promise<void>;
  /** What of it is left on this machine: processes, mounts, cgroups. Nothing once it is off and disposed of. */
  leftovers(): string[];
}

let number = 0;

/** Boots one, with files of this machine bound in; resolves when everything that starts at boot has started. */
export async function bootSystemd(binds: readonly Bind[]): Promise<BootedSystemd> {
  const { root, nspawn, env } = await debianRoot({ dir: CACHE_DIR, log: (line) => console.log(`systemd: ${line}`) });
  await removeAbandoned();
  number += 1;
  const name = `${PREFIX}${process.pid}-${number}`;
  const cgroups = systemdHierarchies().map((folder) => join(folder, name));
  for (const folder of cgroups) await mkdir(folder);
  const absentBefore = NSPAWN_FOLDERS.filter((folder) => !existsSync(folder));
  const options = [
    ...["--quiet", "--boot", "--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off"],
    ...["--timezone=off", "--volatile=overlay", "--console=read-only", `--directory=${root}`, `--machine=${name}`],
    ...binds.map(({ from, to, writable }) => `--bind${writable ? "" : "-ro"}=${from}:${to}`),
  ];
  const enter = 'for dir in $GPUNODE_CGROUPS; do echo $$ >"$dir/cgroup.procs" || exit 1; done; exec "$@"';
  // nspawn's death alone would leave its machine running. As process 1 of a process namespace it takes all of it along.
  const bound = ["setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];
  const child = spawn("sh", ["-c", enter, "sh", ...bound, nspawn, ...options], {
    // The tree below the overlay is only read, so machines may share it.
    env: { ...env, GPUNODE_CGROUPS: cgroups.join(" "), SYSTEMD_NSPAWN_LOCK: "0" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const off = once(child, "close").then(() => undefined);

  const attempt = async (program: string, ...args: string[]) => await inside(leaderOf(child), [program, ...args]);
  const run = async (program: string, ...args: string[]) => {
    const { code, stdout, stderr } = await attempt(program, ...args);
    if (code !== 0) throw new Error(`${[program, ...args].join(" ")} ended with code ${code}: ${stderr || stdout}`);
    return stdout.trimEnd();
  };
  const machine: BootedSystemd = {
    run,
    attempt,
    commandLine: (program, ...args) => ["nsenter", "--target", leaderOf(child), "--all", "--", program, ...args],
    write: async (path, text) => {
      await run("sh", "-c", 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1" && chmod 644 "$1"', "sh", path, text);
    },
    off,
    leftovers: () => [
      ...cgroups.filter((folder) => existsSync(folder)),
      ...(readFileSync("/proc/self/mounts", "utf8").includes(name) ? [`a mount of ${name}`] : []),
      ...processesOf(name).map((pid) => `process ${pid}`),
      ...absentBefore.filter((folder) => existsSync(folder)),
    ],
    async [Symbol.asyncDispose]() {
      // nspawn rather than its parent, which then collects it: not every machine's process 1 does.
      if (child.exitCode === null && child.signalCode === null) process.kill(Number(nspawnOf(child)), "SIGKILL");
      await off;
      for (const folder of cgroups) await removeCgroup(folder);
      for (const folder of absentBefore) await rmdir(folder).catch(() => undefined);
    },
  };
  const deadline = performance.now() + BOOT_TIMEOUT_MS;
  for (;;) {
    const state = await attempt("systemctl", "is-system-running").catch(() => undefined);
    if (/^(?:running|degraded)/.test(state?.stdout ?? "")) return machine;
    if (child.exitCode !== null || performance.now() > deadline) {
      await machine[Symbol.asyncDispose]();
      throw new Error(`systemd did not come up (${state?.stdout ?? ""}):\n${output.slice(-2000)}`);
    }
    await sleep(50);
  }
}

/** Process 1 of the machine. */
function leaderOf(child: ChildProcess): string {
  return onlyChildOf(nspawnOf(child));
}

/** `child` is sh, then setpriv, then unshare; nspawn is what unshare forks. */
function nspawnOf({ pid }: ChildProcess): string {
  return onlyChildOf(String(pid));
}

function onlyChildOf(pid: string): string {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  if (!/^\d+$/.test(children)) throw new Error("the machine is not up");
  return children;
}

function inside(leader: string, command: readonly string[]): Promise<Outcome> {
  const env = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C.UTF-8" };
  return new Promise((done) => {
    execFile(
      "nsenter",
      ["--target", leader, "--all", "--", ...command],
      { env, timeout: EXEC_TIMEOUT_MS, maxBuffer: 16 * 1024 * 1024 },
      (error, stdout, stderr) => done({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr }),
    );
  });
}

/** Where systemd keeps its cgroups: the one of v2, and the named one of v1 where it is mounted. */
function systemdHierarchies(): string[] {
  return readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type, options]) => type === "cgroup2" || (type === "cgroup" && options?.includes("name=systemd")))
    .map(([, folder]) => folder ?? "");
}

/** nspawn itself and what entered its cgroup; those inside are below it. */
function processesOf(name: string): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      try {
        return Number.isInteger(pid) && readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(`/${name}`);
      } catch {
        return false;
      }
    });
}

/** Cgroups of machines whose test was killed: the machine died with it, its empty folders did not. */
async function removeAbandoned(): Promise<void> {
  for (const folder of systemdHierarchies()) {
    for (const entry of readdirSync(folder).filter((one) => one.startsWith(PREFIX))) {
      const owner = basename(entry).slice(PREFIX.length).split("-")[0];
      if (!existsSync(`/proc/${owner}`)) await removeCgroup(join(folder, entry));
    }
  }
}
