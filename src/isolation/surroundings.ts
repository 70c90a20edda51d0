import { readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { type Cidr, cidr, formatCidr, parseCidr } from "./addresses.ts";
import { furtherNetworks } from "./blocked.ts";
import { BRIDGE_PREFIX } from "./rules.ts";

/** This machine's own place in the network, as the rules and the probe need it. */
export interface Surroundings {
  /** Attached or routed networks that are not blocked anyway. */
  readonly networks: readonly Cidr[];
  /** Name servers that are asked from inside a workload's network. */
  readonly resolvers: readonly Cidr[];
  /** Addresses of this machine that others on its networks know; without loopback, link-local and our own bridges. */
  readonly addresses: readonly string[];
  /** The next hop of the IPv4 default route, which is the owner's router. */
  readonly router?: string;
  readonly hasIpv6: boolean;
}

/** So many are tried; a machine has few. */
const ADDRESSES_MOST = 8;
/** Bridges that engines make come and go; their networks are private. */
const CONTAINERS_DEVICE = /^(gpn-.*|docker\d+|br-[0-9a-f]{12}|veth.*)$/;
/** Where systemd-resolved keeps the servers behind its stub, and where Docker then looks, too. */
const STUB = "127.0.0.53";
const BEHIND_STUB = "/run/systemd/resolve/resolv.conf";

/** Reads what the kernel and the resolver's files say; what cannot be read counts as empty. Costs a few small files. */
export async function readSurroundings(): Promise<Surroundings> {
  const [routes4, routes6, resolvConf] = await Promise.all(
    ["/proc/net/route", "/proc/net/ipv6_route", "/etc/resolv.conf"].map(textOf),
  );
  const servers = nameServers(resolvConf ?? "");
  const behind = servers.includes(STUB) ? nameServers(await textOf(BEHIND_STUB)) : [];
  const own = ownAddresses();
  const { networks: routed4, router } = ipv4Routes(routes4 ?? "");
  const attached = own.flatMap(({ network }) => network);
  return {
    networks: furtherNetworks([...attached, ...routed4, ...ipv6Routes(routes6 ?? "")]),
    resolvers: resolverAddresses([...servers, ...behind]),
    addresses: own.map(({ address }) => address).slice(0, ADDRESSES_MOST),
    ...(router !== undefined && { router }),
    hasIpv6: (routes6 ?? "") !== "",
  };
}

function ownAddresses(): { address: string; network: Cidr[] }[] {
  return Object.entries(networkInterfaces())
    .filter(([name]) => !CONTAINERS_DEVICE.test(name))
    .flatMap(([, entries]) => entries ?? [])
    .filter(({ internal, address }) => !internal && !/^fe80:/i.test(address))
    .map(({ address, cidr: network }) => ({
      address,
      network: [parseCidr(network ?? "")].filter((at) => at !== undefined),
    }));
}

/**
 * Of `/proc/net/route`: destination networks and the default route's next hop. Numbers are little-endian hexadecimal
 * (`man 5 proc`, net/route).
 */
export function ipv4Routes(text: string): { networks: Cidr[]; router?: string } {
  const networks: Cidr[] = [];
  let router: string | undefined;
  for (const line of text.split("\n").slice(1)) {
    const [device = "", destination = "", gateway = "", , , , , mask = ""] = line.split("\t");
    if (!/^[0-9A-F]{8}$/.test(destination) || device.startsWith(BRIDGE_PREFIX)) continue;
    const prefix = [...Number.parseInt(mask, 16).toString(2)].filter((bit) => bit === "1").length;
    if (prefix > 0) networks.push(cidr(`${littleEndian(destination)}/${prefix}`));
    else if (gateway !== "00000000") router ??= littleEndian(gateway);
  }
  return { networks, ...(router !== undefined && { router }) };
}

/** Of `/proc/net/ipv6_route`: destination networks. Fields: destination, its prefix in hexadecimal, …, device last. */
export function ipv6Routes(text: string): Cidr[] {
  return text.split("\n").flatMap((line) => {
    const fields = line.trim().split(/\s+/);
    const [destination = "", length = ""] = fields;
    const device = fields.at(-1) ?? "";
    if (!/^[0-9a-f]{32}$/.test(destination) || device === "lo" || device.startsWith(BRIDGE_PREFIX)) return [];
    return [cidr(`${destination.match(/.{4}/g)?.join(":")}/${Number.parseInt(length, 16)}`)];
  });
}

/** Addresses after `nameserver` in a resolv.conf(5). */
export function nameServers(text: string): string[] {
  return [...text.matchAll(/^[ \t]*nameserver[ \t]+(\S+)/gm)].map((match) => match[1] ?? "");
}

/** Loopback ones are asked by the engine itself, outside of the workload; link-local ones cannot be reached from a bridge. */
function resolverAddresses(servers: readonly string[]): Cidr[] {
  const parsed = servers
    .filter((server) => !/^(127\.|::1$|fe80:)/i.test(server))
    .map(parseCidr)
    .filter((server) => server !== undefined);
  return [...new Map(parsed.map((server) => [formatCidr(server), server])).values()];
}

function littleEndian(hex: string): string {
  return [...Buffer.from(hex, "hex")].reverse().join(".");
}

async function textOf(path: string): Promise<string> {
  return await readFile(path, "utf8").catch(() => "");
}
