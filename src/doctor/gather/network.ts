import type { NetworkFacts } from "../facts.ts";
import type { Machine } from "../machine.ts";
import type { Reader } from "./reader.ts";

/** TCP_LISTEN of the kernel's `tcp_states.h`. */
const LISTENING = "0A";

export const network: Reader<"network"> = {
  limitMs: 2_000,
  read({ machine }): NetworkFacts | { missing: string } {
    const tcp = machine.text("/proc/net/tcp");
    if (tcp === undefined) return { missing: "/proc/net cannot be read" };
    const uplink = uplinkOf(machine);
    const localPorts = rangesOf(machine.text("/proc/sys/net/ipv4/ip_local_port_range")?.trim().replace(/\s+/, "-"))[0];
    const bridges = machine
      .names("/sys/class/net")
      .filter((name) => /^(?:docker\d+|br-[0-9a-f]{12}|gpn-\w+)$/.test(name));
    return {
      ...(uplink !== undefined && { uplink }),
      bridges: new Map(bridges.flatMap((name) => mtuOf(machine, name).map((mtu) => [name, mtu] as const))),
      ...(localPorts !== undefined && { localPorts }),
      reservedPorts: rangesOf(machine.text("/proc/sys/net/ipv4/ip_local_reserved_ports")),
      listening: new Map([machine.text("/proc/net/tcp6") ?? "", tcp].flatMap(listeningPorts)),
    };
  },
};

/** The device of default routes with the smallest packets; also the halves that VPN clients set (0.0.0.0/1, 128.0.0.0/1). */
function uplinkOf(machine: Machine): NetworkFacts["uplink"] {
  const devices = (machine.text("/proc/net/route") ?? "")
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const [device = "", destination, , , , , , mask] = line.split("\t");
      const isDefault = destination === "00000000" && (mask === "00000000" || mask === "00000080");
      return isDefault || (destination === "00000080" && mask === "00000080") ? [device] : [];
    });
  return [...new Set(devices)]
    .flatMap((device) => mtuOf(machine, device).map((mtu) => ({ device, mtu })))
    .sort((a, b) => a.mtu - b.mtu)[0];
}

function mtuOf(machine: Machine, device: string): number[] {
  const mtu = Number(machine.text(`/sys/class/net/${device}/mtu`));
  return Number.isInteger(mtu) && mtu > 0 ? [mtu] : [];
}

/** `8080,9148-9200` (Documentation/networking/ip-sysctl). */
function rangesOf(text = ""): { from: number; to: number }[] {
  return text
    .trim()
    .split(",")
    .flatMap((part) => {
      const [, from, to = from] = /^(\d+)(?:-(\d+))?$/.exec(part.trim()) ?? [];
      return from === undefined ? [] : [{ from: Number(from), to: Number(to) }];
    });
}

/** Of `/proc/net/tcp` and `tcp6`: port and uid of each socket that listens. */
export function listeningPorts(text: string): [number, number][] {
  return text.split("\n").flatMap((line): [number, number][] => {
    const fields = line.trim().split(/\s+/);
    const [, port] = /^[0-9A-F]+:([0-9A-F]{4})$/.exec(fields[1] ?? "") ?? [];
    return port === undefined || fields[3] !== LISTENING ? [] : [[Number.parseInt(port, 16), Number(fields[7])]];
  });
}
