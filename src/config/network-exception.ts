import { isIPv4, isIPv6 } from "node:net";

/** Something of the owner's network that workloads may reach. */
export interface NetworkException {
  /** `10.0.0.0/24`, `fd00::5`. */
  address: string;
  /** All where absent. */
  port?: number;
  /** Both where absent; only with a port. */
  protocol?: "tcp" | "udp";
}

/** Address and prefix, a port, a protocol; an IPv6 address that a port follows stands in brackets. */
const BARE = /^(?<address>[^\s[\]/]+)(?:\/(?<prefix>\d{1,3}))?$/;
const WITH_PORT = /^(?:\[(?<six>[^\s[\]]+)\]|(?<four>[\d./]+)):(?<port>\d{1,5})(?:\/(?<protocol>tcp|udp))?$/;

/** Reads `192.168.1.10:2049/tcp`, `10.0.0.0/24`, `fd00::/64` or `[fd00::5]:443`; undefined where it is none of those. */
export function networkException(text: string): NetworkException | undefined {
  const withPort = WITH_PORT.exec(text)?.groups;
  if (withPort === undefined) return isRange(text) ? { address: text } : undefined;
  const { six, four, port: digits, protocol } = withPort;
  const address = six ?? four ?? "";
  const port = Number(digits);
  if (!isRange(address) || (six === undefined) !== isIPv4(address.split("/")[0] ?? "") || port < 1 || port > 65535) {
    return undefined;
  }
  return { address, port, ...((protocol === "tcp" || protocol === "udp") && { protocol }) };
}

function isRange(text: string): boolean {
  const { address = "", prefix } = BARE.exec(text)?.groups ?? {};
  const width = isIPv4(address) ? 32 : isIPv6(address) && !address.includes("%") ? 128 : 0;
  return width > 0 && (prefix === undefined || Number(prefix) <= width);
}
