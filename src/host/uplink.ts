import { readText } from "./read-text.ts";

/** The network device that leads out, and the largest packet it carries, in bytes. */
export interface Uplink {
  device: string;
  mtu: number;
}

/**
 * The device of default routes with the smallest packets; also the halves that VPN clients set (0.0.0.0/1, 128.0.0.0/1). Undefined
 * where nothing leads out over IPv4. `read` returns a file's text, undefined where it cannot be read.
 */
export function uplink(read: (path: string) => string | undefined = readText): Uplink | undefined {
  const devices = (read("/proc/net/route") ?? "")
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const [device = "", destination, , , , , , mask] = line.split("\t");
      const isDefault = destination === "00000000" && (mask === "00000000" || mask === "00000080");
      return isDefault || (destination === "00000080" && mask === "00000080") ? [device] : [];
    });
  return [...new Set(devices)]
    .flatMap((device) => {
      const mtu = mtuOf(device, read);
      return mtu === undefined ? [] : [{ device, mtu }];
    })
    .sort((a, b) => a.mtu - b.mtu)[0];
}

/** Undefined where the kernel knows no such device. */
export function mtuOf(device: string, read: (path: string) => string | undefined = readText): number | undefined {
  const mtu = Number(read(`/sys/class/net/${device}/mtu`));
  return Number.isInteger(mtu) && mtu > 0 ? mtu : undefined;
}
