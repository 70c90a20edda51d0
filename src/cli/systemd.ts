import { join } from "node:path";
import { askBus, type BodyReader, BusError, pathLabel } from "./dbus.ts";

/** The unit this process belongs to. */
export interface OwnUnit {
  /** `gpunode.service`. */
  name: string;
  /** Who runs it: the machine's systemd, or that of one user (`systemctl --user`). */
  manager: "system" | "user";
}

/** What systemd has in its queue, as `systemctl list-jobs` shows it. */
export interface Job {
  unit: string;
  /** `start`, `stop`, `restart`, … : systemd's JobType. */
  type: string;
}

/** What systemd is about to do, as it says itself. */
export interface SystemdAnswer {
  jobs: readonly Job[];
  /** The unit's TimeoutStopSec: `Infinity` where it waits for ever, undefined where it could not be read. */
  stopTimeoutMs: number | undefined;
}

/** An answer takes 2 ms. A systemd that is too busy for one must not eat up the time the work is to end in. */
const ASK_TIMEOUT_MS = 1500;
const SYSTEM_BUS = "/run/dbus/system_bus_socket";
/** org.freedesktop.systemd1(5) */
const SYSTEMD = { destination: "org.freedesktop.systemd1", path: "/org/freedesktop/systemd1" };
/** USEC_INFINITY */
const FOR_EVER = 2n ** 64n - 1n;

/**
 * Reads `/proc/self/cgroup` (man 7 cgroups). undefined where the process is not part of a service: started by hand, in a session or
 * a terminal (those are scopes), or where no systemd runs.
 */
export function ownUnit(cgroup: string): OwnUnit | undefined {
  for (const line of cgroup.split("\n")) {
    // systemd arranges its own hierarchy, `0::` or `N:name=systemd:`; in the others of cgroup v1 units need not appear.
    const path = /^\d+:(?:name=systemd)?:(\/.*)$/.exec(line)?.[1];
    const parts = path?.split("/") ?? [];
    const index = parts.findLastIndex((part) => /\.(?:service|scope)$/.test(part));
    const name = parts[index];
    if (name?.endsWith(".service") !== true) continue;
    const isUsers = parts.slice(0, index).some((part) => /^user@\d+\.service$/.test(part));
    // A name that could be taken for one of the kernel's files has a "_" put before it.
    return { name: name.replace(/^_/, ""), manager: isUsers ? "user" : "system" };
  }
  return undefined;
}

/**
 * Asks systemd what it is about to do, and how long the unit's end may take; every user may ask that. Throws where systemd cannot be
 * reached: no D-Bus, or no answer in 1.5 s.
 */
export async function askSystemd(
  { name, manager }: OwnUnit,
  { env = process.env, systemBus = SYSTEM_BUS }: { env?: NodeJS.ProcessEnv; systemBus?: string } = {},
): Promise<SystemdAnswer> {
  const socket = manager === "system" ? systemBus : join(env.XDG_RUNTIME_DIR ?? "/nonexistent", "bus");
  const [jobs, stopTimeout] = await askBus(
    socket,
    [
      { ...SYSTEMD, interface: "org.freedesktop.systemd1.Manager", member: "ListJobs" },
      {
        ...SYSTEMD,
        path: `${SYSTEMD.path}/unit/${pathLabel(name)}`,
        interface: "org.freedesktop.DBus.Properties",
        member: "Get",
        args: ["org.freedesktop.systemd1.Service", "TimeoutStopUSec"],
      },
    ],
    AbortSignal.timeout(ASK_TIMEOUT_MS),
  );
  if (!jobs || jobs instanceof BusError) throw jobs ?? new BusError("no answer");
  return {
    jobs: readJobs(jobs),
    stopTimeoutMs: !stopTimeout || stopTimeout instanceof BusError ? undefined : readTimeout(stopTimeout),
  };
}

/** Of `a(usssoo)`: number, unit, type, state, and two paths. */
function readJobs(body: BodyReader): Job[] {
  return body.array(8, () => {
    body.uint32();
    const job = { unit: body.string(), type: body.string() };
    for (let skipped = 0; skipped < 3; skipped += 1) body.string();
    return job;
  });
}

/** A variant that holds microseconds. */
function readTimeout(body: BodyReader): number | undefined {
  if (body.signature() !== "t") return undefined;
  const microseconds = body.uint64();
  return microseconds === FOR_EVER ? Number.POSITIVE_INFINITY : Number(microseconds) / 1000;
}
