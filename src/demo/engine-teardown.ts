import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { lstat, readdir, readFile, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import {
  BRIDGE_PREFIX,
  bridgeName,
  cgroupFolders,
  type EngineState,
  engineProcesses,
  mountsBelow,
  ownerIsAlive,
  readEngineState,
  subnetOf,
} from "./engine-state.ts";

const execFileAsync = promisify(execFile);

type Run = (program: string, args: readonly string[]) => Promise<{ stdout: string } | undefined>;

/** What a SIGKILL and the kernel need at most to let go of processes, mounts and cgroups. */
const RELEASE_TIMEOUT_MS = 10_000;

/**
 * Removes everything a private engine has or has left: processes, containers, mounts, network devices, cgroups, the
 * files outside its folder that it made, and the folder. Works from the state file alone, whether the engine
 * runs, was killed, or was left by a process that is gone. Doing it twice, or by two processes at once, is harmless.
 *
 * @throws where a process or mount does not go away; the folder then stays, since what is mounted there may be in use.
 */
export async function removeEngine(state: EngineState, env: Readonly<Record<string, string>>): Promise<void> {
  const run: Run = (program, args) =>
    execFileAsync(program, args, { env: { ...process.env, ...env } }).catch(() => undefined);

  await until(`processes of the engine in ${state.dir}`, () => {
    const pids = [...engineProcesses(state.dir), ...containedProcesses(state.number)];
    for (const pid of pids) signal(pid, "SIGKILL");
    return pids;
  });
  const shimSockets = await shimSocketsOf(state.runDir);

  await until(`mounts below ${state.dir}`, async () => {
    const mounts = [...mountsBelow(state.dir), ...mountsBelow(state.runDir)];
    for (const path of mounts) await run("umount", [path]);
    return mounts.length === 0 ? [] : [...mountsBelow(state.dir), ...mountsBelow(state.runDir)];
  });

  for (const device of await networkDevices(state.number, run)) await run("ip", ["link", "del", device]);
  for (const folder of cgroupFolders(state.number)) await removeCgroup(folder);
  for (const socket of shimSockets) await rm(socket, { force: true });
  const inUse = await outsidePathsOfEngines();
  for (const path of state.outsidePaths) if (!inUse.has(path)) await removeOwnPath(path);
  // Without our own note in it, the folder is no longer the one that was made for the engine.
  if ((await readEngineState(state.dir)) === undefined) return;
  await rm(state.runDir, { recursive: true, force: true });
  await rm(state.dir, { recursive: true, force: true });
}

/**
 * Removes private engines whose owner ended without a word (SIGKILL, out of memory). An engine of a living process
 * is left alone, and so is any bridge that does not say whose it is. Returns the folders of what was removed.
 */
export async function removeAbandonedEngines(env: Readonly<Record<string, string>>): Promise<string[]> {
  const removed: string[] = [];
  for (const { dir, number } of engineBridges()) {
    const state = await readEngineState(dir);
    if (state !== undefined && (state.number !== number || ownerIsAlive(state))) continue;
    const owner = { pid: 0, startTicks: "" };
    await removeEngine(state ?? { dir, runDir: dir, number, owner, outsidePaths: [] }, env);
    removed.push(dir);
  }
  return removed;
}

/** The private engines of this machine, told by their bridges, whose alias names the engine's folder. */
export function engineBridges(): { number: number; dir: string }[] {
  const bridges: { number: number; dir: string }[] = [];
  for (const device of readdirSync("/sys/class/net")) {
    const number = Number(device.slice(BRIDGE_PREFIX.length));
    if (!device.startsWith(BRIDGE_PREFIX) || !Number.isInteger(number) || bridgeName(number) !== device) continue;
    try {
      const alias = readFileSync(`/sys/class/net/${device}/ifalias`, "utf8").trim();
      if (alias.startsWith("/")) bridges.push({ number, dir: alias });
    } catch {
      // Removed by its owner between the listing and the reading.
    }
  }
  return bridges;
}

/** Paths outside their folders that the private engines now on this machine will remove, the last of them for all. */
export async function outsidePathsOfEngines(): Promise<Set<string>> {
  const states = await Promise.all(engineBridges().map(({ dir }) => readEngineState(dir)));
  return new Set(states.flatMap((state) => state?.outsidePaths ?? []));
}

/** Network devices of an engine: its bridge, the bridges of its other networks, and what is plugged into them. */
async function networkDevices(number: number, run: Run): Promise<string[]> {
  // Node's own list leaves out bridges without a carrier, which is what a killed engine's bridges are.
  const addresses = (await run("ip", ["-o", "-4", "addr", "show"]))?.stdout.split("\n") ?? [];
  const bridges = addresses
    .map((line) => line.split(/\s+/))
    .filter((words) => words[3]?.startsWith(subnetOf(number).prefix))
    .map((words) => words[1] ?? "");
  const own = new Set([...bridges, bridgeName(number)]);
  const devices: string[] = [];
  for (const bridge of own) {
    devices.push(...(await readdir(`/sys/class/net/${bridge}/brif`).catch(() => [])));
  }
  return [...devices, ...own];
}

function containedProcesses(number: number): number[] {
  const pids = new Set<number>();
  for (const folder of cgroupFolders(number)) {
    for (const child of [folder, ...subfolders(folder)]) {
      try {
        for (const line of readFileSync(join(child, "cgroup.procs"), "utf8").split("\n")) {
          if (line !== "") pids.add(Number(line));
        }
      } catch {
        // No such cgroup, or one that went away.
      }
    }
  }
  return [...pids].filter((pid) => pid > 1);
}

function subfolders(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .flatMap((entry) => [join(folder, entry.name), ...subfolders(join(folder, entry.name))]);
  } catch {
    return [];
  }
}

/** Removes a cgroup and those below it, once the last process has left. */
export async function removeCgroup(folder: string): Promise<void> {
  // The files of a cgroup cannot be unlinked: only its folders, from the leaves up, once the last process has gone.
  for (const path of [folder, ...subfolders(folder)].reverse()) {
    for (let attempt = 0; attempt < 20; attempt++) {
      const busy = await rmdir(path).then(
        () => false,
        (error: NodeJS.ErrnoException) => error.code === "EBUSY",
      );
      if (!busy) break;
      await sleep(50);
    }
  }
}

/** Shims listen below `/run/containerd/s` whatever the engine's folder is; each notes its address beside its bundle. */
async function shimSocketsOf(runDir: string): Promise<string[]> {
  const bundles = join(runDir, "exec/containerd/daemon/io.containerd.runtime.v2.task/moby");
  const ids = await readdir(bundles).catch(() => []);
  const addresses = await Promise.all(ids.map((id) => readFile(join(bundles, id, "address"), "utf8").catch(() => "")));
  return addresses
    .filter((address) => address.startsWith("unix:///"))
    .map((address) => address.slice("unix://".length));
}

/** Removes a file, or a folder if it is empty: with something in it, it is in use by somebody else by now. */
async function removeOwnPath(path: string): Promise<void> {
  const status = await lstat(path).catch(() => undefined);
  if (status === undefined) return;
  await (status.isDirectory() ? rmdir(path) : rm(path)).catch(() => undefined);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Gone already, which is what was wanted.
  }
}

async function until(what: string, remaining: () => readonly unknown[] | Promise<readonly unknown[]>): Promise<void> {
  const deadline = Date.now() + RELEASE_TIMEOUT_MS;
  for (;;) {
    const left = await remaining();
    if (left.length === 0) return;
    if (Date.now() > deadline) throw new Error(`${what} do not go away: ${left.join(", ")}.`);
    await sleep(25);
  }
}
