import { join } from "node:path";
import { readText } from "./read-text.ts";

/** Whom a process belongs to, as its cgroup tells. */
export type ProcessOwner =
  /** A container, by its full id. */
  | { container: string }
  /** A systemd service or session outside containers, e.g. `user@1000.service`, `nvidia-persistenced.service`. */
  | { unit: string };

/** Container ids are 64 hexadecimal digits with every engine (OCI runtimes, Docker, containerd, podman, CRI-O). */
const ID = /[0-9a-f]{64}/;

/**
 * How engines name the cgroup of a container, as the last part of a path that names one: Docker `<id>` and `docker-<id>.scope`, containerd
 * and Kubernetes `cri-containerd-<id>.scope` or `<id>`, CRI-O `crio-<id>.scope`, podman `libpod-<id>.scope` or `libpod-<id>`.
 */
const CONTAINER = new RegExp(`^(?:[a-z][a-z0-9_.-]*-)?(${ID.source})(?:\\.scope)?$`);

const UNIT = /^[^/]+\.(?:service|scope)$/;

/**
 * Reads `/proc/<pid>/cgroup` (man 7 cgroups): lines `hierarchy:controllers:path`, one for each cgroup v1 hierarchy, `0::path` for v2, both
 * on hybrid machines. The innermost container counts: Docker in Docker is its inner one. undefined where none is named.
 */
export function ownerOf(cgroup: string): ProcessOwner | undefined {
  let unit: string | undefined;
  for (const line of cgroup.split("\n")) {
    const path = /^\d+:[^:]*:(\/.*)$/.exec(line)?.[1];
    if (path === undefined) continue;
    const parts = path.split("/").reverse();
    for (const part of parts) {
      const container = CONTAINER.exec(part)?.[1];
      if (container !== undefined) return { container };
    }
    unit ??= parts.find((part) => UNIT.test(part));
  }
  return unit === undefined ? undefined : { unit };
}

/** Whom a running process belongs to; undefined where it is gone or its cgroup names nobody. */
export function ownerOfProcess(pid: number, procDir = "/proc"): ProcessOwner | undefined {
  const text = readText(join(procDir, String(pid), "cgroup"));
  return text === undefined ? undefined : ownerOf(text);
}

/**
 * Field 22 of `/proc/<pid>/stat`: when the process was started, in clock ticks since boot. With it a process id that was given
 * again is another process. undefined where there is no such process.
 */
export function startTicks(pid: number, procDir = "/proc"): string | undefined {
  const text = readText(join(procDir, String(pid), "stat"));
  // The name, in parentheses, may hold anything, parentheses and spaces too: the last one closes it.
  const rest = text?.slice(text.lastIndexOf(")") + 1).trim();
  const ticks = rest?.split(" ")[19];
  return ticks !== undefined && /^\d+$/.test(ticks) ? ticks : undefined;
}
