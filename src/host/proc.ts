/**
 * Readers of the kernel's text files (man 5 proc). Pure, over text; a file or field that is missing or mangled is
 * undefined, never 0 and never an error.
 */

/** Clock ticks since boot, over all CPUs. */
export interface CpuTicks {
  busy: number;
  total: number;
}

/** `/proc/stat`: the line "cpu". Guest time is already within user and nice; waiting for I/O counts as idle. */
export function parseCpuTicks(text: string): CpuTicks | undefined {
  const line = /^cpu +(.*)$/m.exec(text)?.[1];
  if (line === undefined) return undefined;
  const ticks = line.trim().split(/\s+/).slice(0, 8).map(countOf);
  const [user, nice, system, idle, iowait = 0, irq = 0, softirq = 0, steal = 0] = ticks;
  if (user === undefined || nice === undefined || system === undefined || idle === undefined) return undefined;
  const busy = user + nice + system + irq + softirq + steal;
  return { busy, total: busy + idle + iowait };
}

/** `/proc/loadavg`: the average over one minute. */
export function parseLoadAverage1(text: string): number | undefined {
  const value = Number(/^\d+\.\d+(?= )/.exec(text)?.[0]);
  return Number.isFinite(value) ? value : undefined;
}

export interface Meminfo {
  totalMiB: number;
  /** What can be given out without swapping (`MemAvailable`, Linux 3.14 and later). */
  availableMiB?: number;
}

/** `/proc/meminfo`. */
export function parseMeminfo(text: string): Meminfo | undefined {
  const totalMiB = mebibytesOf(/^MemTotal: +(\d+) kB$/m.exec(text)?.[1]);
  if (totalMiB === undefined) return undefined;
  const availableMiB = mebibytesOf(/^MemAvailable: +(\d+) kB$/m.exec(text)?.[1]);
  return availableMiB === undefined ? { totalMiB } : { totalMiB, availableMiB };
}

/** `/proc/pressure/memory`: percent of the last ten seconds in which some task waited for memory. */
export function parsePressureSome10(text: string): number | undefined {
  const value = Number(/^some avg10=(\d+\.\d+)(?= )/m.exec(text)?.[1]);
  return Number.isFinite(value) ? Math.min(100, value) : undefined;
}

export interface NetworkBytes {
  rxBytes: number;
  txBytes: number;
}

/**
 * Interfaces whose traffic is no traffic of the machine's, or is counted by the interface below them: loopback, what
 * container engines and hypervisors make, tunnels, bonds and VLANs.
 */
const NOT_COUNTED =
  /^(lo|docker|gpn-|veth|br-|virbr|vnet|cni|flannel|cali|cilium|lxc|podman|tun|tap|wg|tailscale|dummy|ifb|bond|team|vxlan|kube-)|[.:@]/;

/** `/proc/net/dev`: what the machine has received and sent since boot, over its real interfaces. */
export function parseNetDev(text: string): NetworkBytes | undefined {
  let found = false;
  const sum = { rxBytes: 0, txBytes: 0 };
  for (const line of text.split("\n")) {
    // The name may touch its first figure: "eth0:123".
    const [, name, figures] = /^\s*([^\s|]+):\s*(\d[\d\s]*)$/.exec(line) ?? [];
    if (name === undefined || figures === undefined) continue;
    found = true;
    if (NOT_COUNTED.test(name)) continue;
    const columns = figures.trim().split(/\s+/).map(countOf);
    const [rx, tx] = [columns[0], columns[8]];
    if (rx === undefined || tx === undefined) continue;
    sum.rxBytes += rx;
    sum.txBytes += tx;
  }
  return found ? sum : undefined;
}

function mebibytesOf(kibibytes: string | undefined): number | undefined {
  const count = countOf(kibibytes);
  return count === undefined ? undefined : Math.floor(count / 1024);
}

function countOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}
