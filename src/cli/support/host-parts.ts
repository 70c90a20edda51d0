import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { cpus, freemem, hostname, loadavg, networkInterfaces, release, totalmem, uptime, version } from "node:os";
import { join } from "node:path";
import { nvidiaBoards } from "../../gpu/pci-presence.ts";
import { printed, type Said } from "./external.ts";
import { json, type Part } from "./part.ts";

/** Lines of the kernel's log that are about GPUs: the driver's own (NVRM, Xid), the free driver's, and faults of their bus. */
const ABOUT_GPUS = /NVRM|Xid|nvidia|nouveau|AER:|pcieport/i;
const KERNEL_LINES = 50_000;
const MOST_ENTRIES = 2000;

export interface HostOptions {
  stateDir: string;
  /** The file that the daemon reads, where the configuration names one. */
  kernelLog: string | undefined;
  signal: AbortSignal;
}

/** The machine: what it is, how full it is, and what its kernel says of the GPUs. */
export function hostParts({ stateDir, kernelLog, signal }: HostOptions): Part[] {
  return [
    { file: "host.json", from: "/proc, /etc/os-release, /sys", make: () => ({ text: json(host()) }) },
    { file: "disks.txt", from: "df", make: () => disks(signal) },
    {
      file: "mounts.txt",
      from: "/proc/self/mounts",
      make: () => ({ text: readFileSync("/proc/self/mounts", "utf8") }),
    },
    { file: "network.json", from: "this machine's interfaces", make: (count) => ({ text: json(interfaces(count)) }) },
    { file: "state-dir.txt", from: `sizes below ${stateDir}`, make: () => ({ text: sizesBelow(stateDir) }) },
    {
      file: "docker-daemon.json",
      from: "/etc/docker/daemon.json",
      make: () => ({ text: readFileSync("/etc/docker/daemon.json", "utf8") }),
    },
    {
      file: "kernel.txt",
      from: `the kernel's log, lines that match ${ABOUT_GPUS.source}`,
      make: () => kernel(kernelLog, signal),
    },
  ];
}

function host() {
  const [cpu] = cpus();
  return {
    name: hostname(),
    os: fieldsOf(attempt(() => readFileSync("/etc/os-release", "utf8"))),
    kernel: {
      release: release(),
      version: version(),
      commandLine: attempt(() => readFileSync("/proc/cmdline", "utf8").trim()),
    },
    cpu: { model: cpu?.model, count: cpus().length, loadAverage: loadavg() },
    memory: {
      totalMiB: mib(totalmem()),
      freeMiB: mib(freemem()),
      meminfo: attempt(() => readFileSync("/proc/meminfo", "utf8").split("\n").slice(0, 12)),
    },
    uptimeSeconds: Math.round(uptime()),
    isContainer: attempt(() => /docker|lxc|kubepods|containerd/.test(readFileSync("/proc/1/cgroup", "utf8"))),
    cgroups: attempt(() => readFileSync("/proc/self/cgroup", "utf8").trim().split("\n")),
    nvidia: {
      boards: nvidiaBoards(),
      driver: attempt(() => readFileSync("/proc/driver/nvidia/version", "utf8").trim().split("\n")),
      modules: attempt(() =>
        readFileSync("/proc/modules", "utf8")
          .split("\n")
          .filter((line) => /nvidia|nouveau/.test(line)),
      ),
      devices: attempt(() =>
        readdirSync("/dev")
          .filter((name) => name.startsWith("nvidia"))
          .map((name) => entry(join("/dev", name), name)),
      ),
    },
  };
}

/** `KEY=value` lines. */
function fieldsOf(text: unknown): unknown {
  if (typeof text !== "string") return text;
  return Object.fromEntries(
    text.split("\n").flatMap((line) => {
      const [, name, value] = /^([A-Z_]+)="?(.*?)"?$/.exec(line) ?? [];
      return name === undefined ? [] : [[name, value]];
    }),
  );
}

/** By df, which may be cut off where a server that is mounted does not answer; those are not asked. */
async function disks(signal: AbortSignal): Promise<Said> {
  const sizes = await printed("df", ["--print-type", "--local", "--block-size=MiB"], { signal });
  const inodes = await printed("df", ["--inodes", "--local"], { signal });
  const problem = sizes.problem ?? inodes.problem;
  return { text: `${sizes.text}\n${inodes.text}`, ...(problem !== undefined && { problem }) };
}

/** Names, kinds and private addresses; public ones and those of the hardware say who somebody is. */
function interfaces(count: (kind: string, times: number) => void) {
  return Object.entries(networkInterfaces()).map(([name, addresses = []]) => ({
    name,
    addresses: addresses.map(({ family, address, internal, cidr }) => {
      if (internal || isPrivate(address)) return { family, address: cidr ?? address };
      count("public address", 1);
      return { family, address: "[public address hidden]" };
    }),
  }));
}

/** RFC 1918, RFC 6598, link-local; RFC 4193 and fe80::/10. */
function isPrivate(address: string): boolean {
  return /^(?:10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|169\.254\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|127\.|f[cd]|fe[89ab])/i.test(
    address,
  );
}

/** One line for each file and folder: mode, size, last change, name. */
function sizesBelow(dir: string): string {
  const lines: string[] = [];
  const walk = (folder: string, name: string) => {
    for (const each of readdirSync(folder).sort()) {
      if (lines.length >= MOST_ENTRIES) return;
      const path = join(folder, each);
      lines.push(entry(path, `${name}${each}`));
      if (attempt(() => lstatSync(path).isDirectory()) === true) attempt(() => walk(path, `${name}${each}/`));
    }
  };
  lines.push(entry(dir, "."));
  walk(dir, "");
  if (lines.length >= MOST_ENTRIES) lines.push(`… more than ${MOST_ENTRIES} entries`);
  return `${lines.join("\n")}\n`;
}

function entry(path: string, name: string): string {
  const { mode, size, mtime, uid, gid } = lstatSync(path);
  return `${(mode & 0o7777).toString(8).padStart(4, "0")} ${uid}:${gid} ${String(size).padStart(12)} ${mtime.toISOString()} ${name}`;
}

/** From the journal, where there is one; else from the kernel's own buffer; else from the file that the daemon reads. */
async function kernel(kernelLog: string | undefined, signal: AbortSignal): Promise<Said> {
  const journal = await printed(
    "journalctl",
    ["--dmesg", "--boot", "--output=short-iso", "--no-pager", `--lines=${KERNEL_LINES}`],
    { signal },
  );
  if (journal.problem === undefined) return filtered(journal);
  const buffer = await printed("dmesg", ["--time-format=iso"], { signal });
  if (buffer.problem === undefined) return filtered(buffer);
  if (kernelLog !== undefined && attempt(() => lstatSync(kernelLog).isFile()) === true) {
    return filtered({ text: readFileSync(kernelLog, "utf8").slice(-8 * 1024 * 1024) });
  }
  return { text: "", problem: `${journal.problem}; ${buffer.problem}` };
}

function filtered({ text }: Said): Said {
  const lines = text.split("\n").filter((line) => ABOUT_GPUS.test(line));
  if (lines.length === 0) return { text: "", problem: "no line of it is about GPUs" };
  return { text: `${lines.slice(-5000).join("\n")}\n` };
}

function attempt<T>(read: () => T): T | string {
  try {
    return read();
  } catch (error) {
    return `not readable: ${(error as NodeJS.ErrnoException).code ?? String(error)}`;
  }
}

function mib(bytes: number): number {
  return Math.round(bytes / 1024 / 1024);
}
