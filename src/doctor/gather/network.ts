import { mtuOf, uplink } from "../../host/uplink.ts";
import type { NetworkFacts } from "../facts.ts";
import type { Reader } from "./reader.ts";

/** TCP_LISTEN of the kernel's `tcp_states.h`. */
const LISTENING = "0A";

export const network: Reader<"network"> = {
  limitMs: 2_000,
  read({ machine }): NetworkFacts | { missing: string } {
    const tcp = machine.text("/proc/net/tcp");
    if (tcp === undefined) return { missing: "/proc/net cannot be read" };
    const read = (path: string) => machine.text(path);
    const leadsOut = uplink(read);
    const localPorts = rangesOf(machine.text("/proc/sys/net/ipv4/ip_local_port_range")?.trim().replace(/\s+/, "-"))[0];
    const bridges = machine
      .names("/sys/class/net")
      .filter((name) => /^(?:docker\d+|br-[0-9a-f]{12}|gpn-\w+)$/.test(name));
    return {
      ...(leadsOut !== undefined && { uplink: leadsOut }),
      bridges: new Map(
        bridges.flatMap((name) => {
          const mtu = mtuOf(name, read);
          return mtu === undefined ? [] : [[name, mtu] as const];
        }),
      ),
      ...(localPorts !== undefined && { localPorts }),
      reservedPorts: rangesOf(machine.text("/proc/sys/net/ipv4/ip_local_reserved_ports")),
      listening: new Map([machine.text("/proc/net/tcp6") ?? "", tcp].flatMap(listeningPorts)),
    };
  },
};

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
