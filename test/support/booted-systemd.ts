import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { removeCgroup } from "../../src/demo/engine-teardown.ts";
import { debianRoot, debianSuite } from "./debian-root.ts";

/*
 * A Debian machine with systemd as its process 1, booted by systemd-nspawn from a root file system that stays as it is
 * (`--volatile=overlay`): each machine is a fresh one. It shares the network of the test, so a coordinator on loopback is reached
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
  /** Restarts it, and resolves when everything that starts at boot has started again. Its disk must be kept (`keepsDisk`). */
  reboot(): Promise<void>;
  /** Resolves when the machine is off: by `systemctl poweroff`, for one. */
  readonly off: Promise<void>;
  /** What of it is left on this machine: processes, mounts, cgroups. Nothing once it is off and disposed of. */
  leftovers(): string[];
}

export interface BootOptions {
  /** What is written stays over a reboot; it is gone with the machine all the same. */
  keepsDisk?: true;
}

let number = 0;

/** Boots one, with files of this machine bound in; resolves when everything that starts at boot has started. */
export async function bootSystemd(binds: readonly Bind[], { keepsDisk }: BootOptions = {}): Promise<BootedSystemd> {
  const { root, nspawn, env } = await debianRoot({ dir: CACHE_DIR, log: (line) => console.log(`systemd: ${line}`) });
  await removeAbandoned();
  await using rooms = new AsyncDisposableStack();
  number += 1;
  const name = `${PREFIX}${process.pid}-${number}`;
  const cgroups = systemdHierarchies().map((folder) => join(folder, name));
  const absentBefore = NSPAWN_FOLDERS.filter((folder) => !existsSync(folder));
  rooms.defer(async () => {
    for (const folder of absentBefore) await rmdir(folder).catch(() => undefined);
  });
  for (const folder of cgroups) {
    await mkdir(folder);
    rooms.defer(() => removeCgroup(folder));
  }
  const disk = keepsDisk ? rooms.use(await writableCopy(root, name)) : undefined;
  const options = [
    ...["--quiet", "--boot", "--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off"],
    ...["--timezone=off", "--console=read-only", `--machine=${name}`],
    ...(disk === undefined ? ["--volatile=overlay", `--directory=${root}`] : [`--directory=${disk.path}`]),
    ...binds.map(({ from, to, writable }) => `--bind${writable ? "" : "-ro"}=${from}:${to}`),
  ];
  const enter = 'for dir in $GPUNODE_CGROUPS; do echo $$ >"$dir/cgroup.procs" || exit 1; done; exec "$@"';
  // nspawn's death alone would leave its machine running. As process 1 of a process namespace it takes all of it along.
  const bound = ["setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];
  let output = "";
  const turnOn = () => {
    const started = spawn("sh", ["-c", enter, "sh", ...bound, nspawn, ...options], {
      // The tree below the overlay is only read, so machines may share it.
      env: { ...env, GPUNODE_CGROUPS: cgroups.join(" "), SYSTEMD_NSPAWN_LOCK: "0" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [started.stdout, started.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        output += text;
      });
    }
    return { child: started, off: once(started, "close").then(() => undefined) };
  };
  let power = turnOn();
  rooms.defer(async () => {
    const { child, off } = power;
    // nspawn rather than its parent, which then collects it: not every machine's process 1 does.
    if (child.exitCode === null && child.signalCode === null) process.kill(Number(nspawnOf(child)), "SIGKILL");
    await off;
  });

  const attempt = async (program: string, ...args: string[]) => await inside(leaderOf(power.child), [program, ...args]);
  const run = async (program: string, ...args: string[]) => {
    const { code, stdout, stderr } = await attempt(program, ...args);
    if (code !== 0) throw new Error(`${[program, ...args].join(" ")} ended with code ${code}: ${stderr || stdout}`);
    return stdout.trimEnd();
  };
  const up = async () => {
    const deadline = performance.now() + BOOT_TIMEOUT_MS;
    for (;;) {
      const state = await attempt("systemctl", "is-system-running").catch(() => undefined);
      if (/^(?:running|degraded)/.test(state?.stdout ?? "")) return;
      if (power.child.exitCode !== null || performance.now() > deadline) {
        throw new Error(`systemd did not come up (${state?.stdout ?? ""}):\n${output.slice(-2000)}`);
      }
      await sleep(50);
    }
  };
  await up();
  const resources = rooms.move();
  return {
    run,
    attempt,
    commandLine: (program, ...args) => ["nsenter", "--target", leaderOf(power.child), "--all", "--", program, ...args],
    write: async (path, text) => {
      await run("sh", "-c", 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1" && chmod 644 "$1"', "sh", path, text);
    },
    async reboot() {
      // The call's own connection goes down with the machine. nspawn leaves it to its caller to start it again.
      await attempt("systemctl", "--no-block", "reboot");
      await power.off;
      power = turnOn();
      await up();
    },
    get off() {
      return power.off;
    },
    leftovers: () => [
      ...cgroups.filter((folder) => existsSync(folder)),
      ...(readFileSync("/proc/self/mounts", "utf8").includes(name) ? [`a mount of ${name}`] : []),
      ...processesOf(name).map((pid) => `process ${pid}`),
      ...absentBefore.filter((folder) => existsSync(folder)),
    ],
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** A tree that looks like `root` and takes changes, in memory. Of one whose test was killed the next boot removes what is left. */
async function writableCopy(root: string, name: string): Promise<AsyncDisposable & { path: string }> {
  const folder = join(tmpdir(), name);
  const [upper, work, path] = ["upper", "work", "root"].map((part) => join(folder, part)) as [string, string, string];
  await mkdir(folder);
  await mounted(folder, ["-t", "tmpfs", "-o", "mode=755", name]);
  for (const part of [upper, work, path]) await mkdir(part);
  await mounted(path, ["-t", "overlay", "-o", `lowerdir=${root},upperdir=${upper},workdir=${work}`, name]);
  return { path, [Symbol.asyncDispose]: () => removeCopy(folder) };
}

async function mounted(at: string, how: readonly string[]): Promise<void> {
  await promisify(execFile)("mount", [...how, at]);
}

async function removeCopy(folder: string): Promise<void> {
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  const points = mounts.map((line) => line.split(" ")[1] ?? "").filter((at) => `${at}/`.startsWith(`${folder}/`));
  // What is mounted last goes first.
  for (const at of points.reverse()) await promisify(execFile)("umount", [at]);
  await rmdir(folder);
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

/** Cgroups and disks of machines whose test was killed: the machine died with it, these did not. */
async function removeAbandoned(): Promise<void> {
  for (const entry of readdirSync(tmpdir()).filter((one) => one.startsWith(PREFIX))) {
    const owner = entry.slice(PREFIX.length).split("-")[0];
    if (!existsSync(`/proc/${owner}`)) await removeCopy(join(tmpdir(), entry));
  }
  for (const folder of systemdHierarchies()) {
    for (const entry of readdirSync(folder).filter((one) => one.startsWith(PREFIX))) {
      const owner = basename(entry).slice(PREFIX.length).split("-")[0];
      if (!existsSync(`/proc/${owner}`)) await removeCgroup(join(folder, entry));
    }
  }
}
