import { readdirSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";

/** Bridges of private engines: `gpunode0` … `gpunode63`. The name is the claim on the subnet of the same number. */
export const BRIDGE_PREFIX = "gpunode";
export const ENGINE_COUNT_MAX = 64;

/** Set in the environment of an engine's dockerd, and so inherited by containerd, shims and port proxies. */
export const ENGINE_MARKER = "GPUNODE_PRIVATE_ENGINE";

/** Written to `engine.json` in the engine's folder: all that is needed to remove it, also from another process. */
const engineStateSchema = z.object({
  dir: z.string(),
  /** Holds the sockets: `dir`, or a shorter folder where `dir` is too long for a unix socket. */
  runDir: z.string(),
  number: z.number().int().min(0),
  owner: z.object({ pid: z.number().int(), startTicks: z.string() }),
  /** Paths outside `dir` that dockerd or containerd make whatever they are told, and that were not here before. */
  outsidePaths: z.array(z.string()),
});

export type EngineState = z.infer<typeof engineStateSchema>;

export function bridgeName(number: number): string {
  return `${BRIDGE_PREFIX}${number}`;
}

/** The lower half of each engine's /24 is its default bridge, the upper half the pool of its other networks. */
export function subnetOf(number: number): { gateway: string; bridgeCidr: string; poolBase: string; prefix: string } {
  const prefix = `10.213.${number}.`;
  return { prefix, gateway: `${prefix}1`, bridgeCidr: `${prefix}1/25`, poolBase: `${prefix}128/25` };
}

/** Cgroup below which all containers of an engine lie, in every hierarchy. */
export function cgroupName(number: number): string {
  return `${BRIDGE_PREFIX}-engine-${number}`;
}

export async function readEngineState(dir: string): Promise<EngineState | undefined> {
  const text = await readFile(join(dir, "engine.json"), "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    return engineStateSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** When a process was started, in clock ticks since boot (`/proc/PID/stat`, field 22); undefined where it is gone. */
export function processStartTicks(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The second field is the program's name in parentheses and may hold blanks and parentheses itself.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** True while the process that started this engine runs; a process id that was given out again does not count. */
export function ownerIsAlive(state: EngineState): boolean {
  return processStartTicks(state.owner.pid) === state.owner.startTicks;
}

/** Ids of the processes that carry the marker of the engine in `dir`: dockerd, containerd, shims, port proxies. */
export function engineProcesses(dir: string): number[] {
  const marker = `${ENGINE_MARKER}=${dir}`;
  const pids: number[] = [];
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      if (readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(marker)) pids.push(pid);
    } catch {
      // Gone between the listing and the reading, or not ours to read.
    }
  }
  return pids;
}

/** Mount points at or below `dir`, deepest first. */
export function mountsBelow(dir: string): string[] {
  return readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => unescapeMount(line.split(" ")[1] ?? ""))
    .filter((path) => path === dir || path.startsWith(`${dir}/`))
    .reverse();
}

/** Folders of an engine's cgroup in every hierarchy this machine has mounted. */
export function cgroupFolders(number: number): string[] {
  return readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter((fields) => fields[2] === "cgroup" || fields[2] === "cgroup2")
    .map((fields) => join(unescapeMount(fields[1] ?? ""), cgroupName(number)));
}

function unescapeMount(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
