import type { User } from "./facts.ts";
import type { FileLook, Machine } from "./machine.ts";

/** A user of passwd(5) by name or number, with its groups of group(5); undefined where there is none. */
export function userOf(machine: Machine, who: string | number): User | undefined {
  const line = rows(machine, "/etc/passwd").find(([name, , uid]) => name === who || uid === String(who));
  const [name, , uid, gid] = line ?? [];
  if (name === undefined || uid === undefined || gid === undefined) return undefined;
  const member = rows(machine, "/etc/group").filter(([, , , members = ""]) => members.split(",").includes(name));
  return { name, uid: Number(uid), gids: [Number(gid), ...member.map(([, , id]) => Number(id))] };
}

export function groupId(machine: Machine, name: string): number | undefined {
  const id = rows(machine, "/etc/group").find(([group]) => group === name)?.[2];
  return id === undefined ? undefined : Number(id);
}

export function groupName(machine: Machine, gid: number): string | undefined {
  return rows(machine, "/etc/group").find(([, , id]) => id === String(gid))?.[0];
}

const BITS = { read: 4, write: 2 } as const;

/** Whether the permission bits let a user read or write a file. Access lists are not asked. */
export function mayUse({ uid, gids }: User, look: FileLook, how: keyof typeof BITS): boolean {
  if (uid === 0) return true;
  const shift = look.uid === uid ? 6 : gids.includes(look.gid) ? 3 : 0;
  return ((look.mode >> shift) & BITS[how]) !== 0;
}

function rows(machine: Machine, path: string): string[][] {
  return (machine.text(path) ?? "").split("\n").map((line) => line.split(":"));
}
