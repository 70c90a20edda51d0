import type { Claim, Raise } from "./claim.ts";
import { shown } from "./in-words.ts";

/** A process on a GPU that is no workload's, as a full read of the processes tells it. */
export interface ForeignProcess {
  /** UUID of the board. */
  gpu: string;
  pid: number;
  name: string;
  /** undefined where nobody can be named. */
  owner: { container: string } | { unit: string } | undefined;
  /** undefined where the driver does not tell of each process. */
  vramUsedMiB?: number;
}

export interface ForeignUseOptions {
  /** More VRAM than this for so long takes the GPU back. */
  limits: { vramMiB: number; ms: number };
  /** It must be gone for so long before the GPU is lent again. */
  backAfterMs: number;
  steady(): number;
  /** Whether a container is this node's own, running or not: a workload that begins or ends is nobody else's either. */
  isOwnContainer(id: string): boolean;
  /** How a board is called where people read it: "GPU 0". */
  nameOf(gpu: string): string;
  raise: Raise;
  /** Asks for a full read in so many milliseconds; what was asked for before is replaced. Reads that come sooner are welcome. */
  lookAgain(inMs: number): void;
}

export interface ForeignUse {
  /** The processes of a full read; undefined where it failed, so that nothing is known. Never throws. */
  read(processes: readonly ForeignProcess[] | undefined): void;
}

/** After a read that failed, while something is pending: no sooner than this. */
const RETRY_MS = 1_000;

interface Hold {
  /** The process the claim names. */
  key: string;
  claim: Claim;
  /** Since when nobody uses the GPU; undefined while somebody does. */
  freeSince: number | undefined;
}

/**
 * A process of the owner on a lent GPU takes it back: one process, more than `vramMiB`, at every read for `ms`. The GPU is held for as long as
 * anybody uses it so, and for `backAfterMs` after. Until those `ms` have passed nothing new is put on it, and what runs goes on: else an
 * agent that has just started would give it out for them. What cannot be named, or tells no VRAM, never ends a workload; a read that failed
 * neither takes nor gives back.
 */
export function trackForeignUse(options: ForeignUseOptions): ForeignUse {
  const { limits, backAfterMs, steady, raise, lookAgain } = options;
  /** Who uses how much too much, and since which read. */
  let since = new Map<string, { gpu: string; at: number }>();
  const holds = new Map<string, Hold>();
  let now = steady();
  /** What was raised last, without its figures, which change with each read. */
  let told = "[]";

  const dueIn = (): number | undefined => {
    const moments = [
      ...[...since.values()].filter(({ gpu }) => !holds.has(gpu)).map(({ at }) => at + limits.ms),
      ...[...holds.values()].flatMap(({ freeSince }) => (freeSince === undefined ? [] : [freeSince + backAfterMs])),
    ];
    return moments.length === 0 ? undefined : Math.max(0, Math.min(...moments) - now);
  };

  const settle = (users: ReadonlyMap<string, ForeignProcess>): void => {
    const inUse = new Set<string>();
    for (const [key, user] of users) {
      const { gpu } = user;
      inUse.add(gpu);
      const hold = holds.get(gpu);
      // Held already, for one that is still there.
      if (hold !== undefined && users.has(hold.key)) continue;
      if (now - (since.get(key)?.at ?? now) < limits.ms) continue;
      holds.set(gpu, { key, claim: claimOf(user, options.nameOf(gpu), "stop"), freeSince: undefined });
    }
    for (const [gpu, hold] of holds) {
      hold.freeSince = inUse.has(gpu) ? undefined : (hold.freeSince ?? now);
      if (hold.freeSince !== undefined && now - hold.freeSince >= backAfterMs) holds.delete(gpu);
    }
  };

  /** The biggest user of each GPU that is not held yet: its GPU is given to nobody else meanwhile. */
  const pending = (users: ReadonlyMap<string, ForeignProcess>): Map<string, Hold> => {
    const found = new Map<string, Hold>();
    for (const [key, user] of users) {
      const { gpu } = user;
      if (holds.has(gpu) || found.has(gpu)) continue;
      found.set(gpu, { key, claim: claimOf(user, options.nameOf(gpu), "leave"), freeSince: undefined });
    }
    return found;
  };

  const tell = (users: ReadonlyMap<string, ForeignProcess>): void => {
    const claims = [...holds.values(), ...pending(users).values()];
    const next = JSON.stringify(claims.map(({ key, claim }) => [key, claim.work]));
    if (next === told) return;
    told = next;
    raise(claims.map(({ claim }) => claim));
  };

  return {
    read(processes) {
      now = steady();
      if (processes === undefined) {
        const due = dueIn();
        if (due !== undefined) lookAgain(Math.max(RETRY_MS, due));
        return;
      }
      const users = usersOf(processes, options);
      // Those that are gone, or used less at one read, begin anew.
      since = new Map([...users].map(([key, { gpu }]) => [key, since.get(key) ?? { gpu, at: now }]));
      settle(users);
      tell(users);
      const due = dueIn();
      if (due !== undefined) lookAgain(due);
    },
  };
}

/** Who uses more of a GPU than an owner may without taking it back, the biggest first; each process once for each GPU. */
function usersOf(
  processes: readonly ForeignProcess[],
  { limits, isOwnContainer }: ForeignUseOptions,
): Map<string, ForeignProcess> {
  const users = new Map<string, ForeignProcess>();
  const bySize = [...processes].sort((a, b) => (b.vramUsedMiB ?? 0) - (a.vramUsedMiB ?? 0));
  for (const process of bySize) {
    const { owner, vramUsedMiB } = process;
    if (owner === undefined || vramUsedMiB === undefined || vramUsedMiB <= limits.vramMiB) continue;
    if ("container" in owner && isOwnContainer(owner.container)) continue;
    const key = keyOf(process);
    // Told twice, for graphics and for computing, it is the same memory.
    if (!users.has(key)) users.set(key, process);
  }
  return users;
}

/** With the name and the owner, a process id that was given again is another process. */
function keyOf({ gpu, pid, name, owner }: ForeignProcess): string {
  return JSON.stringify([gpu, pid, name, owner]);
}

function claimOf(
  { gpu, pid, name, owner, vramUsedMiB = 0 }: ForeignProcess,
  gpuName: string,
  work: "stop" | "leave",
): Claim {
  const program = shown(name.slice(name.lastIndexOf("/") + 1)) || "a process";
  const whose =
    owner === undefined
      ? ""
      : "unit" in owner
        ? `, ${shown(owner.unit)}`
        : `, container ${owner.container.slice(0, 12)}`;
  return {
    gpus: [gpu],
    work,
    message: `${program} (pid ${pid}${whose}) uses ${Math.round(vramUsedMiB)} MiB of ${gpuName}`,
  };
}
