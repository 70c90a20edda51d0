import { type Cidr, formatCidr, isSingle, parseCidr } from "./addresses.ts";
import { ALWAYS_BLOCKED } from "./blocked.ts";

/** Our table; everything we tell nftables is in it. */
export const TABLE = "inet gpunode";
/** Script that removes it; one that is not there is made first, since only that cannot fail. */
export const REMOVE_TABLE = `table ${TABLE}\ndelete table ${TABLE}\n`;
/** Every bridge of a workload's network begins with it, and nothing else does. */
export const BRIDGE_PREFIX = "gpn-";

/** Something on the owner's network that workloads may reach all the same. */
export interface Exception {
  readonly to: Cidr;
  /** All ports where absent. */
  readonly port?: number;
  /** Both where absent; goes with a port. */
  readonly protocol?: "tcp" | "udp";
}

/** What the configuration allows, as the rules take it; what is no address is left out. */
export function exceptionsOf(allowed: readonly (Omit<Exception, "to"> & { address: string })[]): Exception[] {
  return allowed.flatMap(({ address, ...rest }) => {
    const to = parseCidr(address);
    return to === undefined ? [] : [{ to, ...rest }];
  });
}

/** All that the rules depend on. */
export interface RuleFacts {
  /** Networks of this machine besides those that are always blocked: `furtherNetworks`. */
  readonly networks: readonly Cidr[];
  /** Name servers of this machine, which the engine asks from inside a workload's network. */
  readonly resolvers: readonly Cidr[];
  readonly exceptions: readonly Exception[];
  /** Megabits per second and workload, in each direction. */
  readonly bandwidthMbit?: number;
}

/**
 * What may pass at once on top of a second's worth, which the kernel's bucket always holds (nft_limit): a few of the 64 KiB packets it makes
 * of many small ones and drops whole.
 */
const BURST_BYTES = 262_144;

/**
 * The whole table as one script for `nft -f -`, which replaces the one before in one transaction. Pure.
 *
 * Packets of a connection that began elsewhere (`ct direction reply`) pass: they answer a published port. What a workload itself
 * began is judged packet by packet, also in a connection that stands, so that one which slipped through while the table was gone is
 * cut when it is back. Hooks run at priority -10, before Docker's and the owner's; "accept" here only means that those decide.
 */
export function renderRules({ networks, resolvers, exceptions, bandwidthMbit }: RuleFacts): string {
  const blocked = [...ALWAYS_BLOCKED, ...networks];
  const limit = bandwidthMbit === undefined ? undefined : limitOf(bandwidthMbit);
  const lines = [
    ...addressSet("blocked4", "ipv4_addr", blocked, 4),
    ...addressSet("blocked6", "ipv6_addr", blocked, 6),
    // What was refused, by bridge: the probe looks here, and so may the owner.
    "set refused { type ifname; size 4096; flags dynamic,timeout; timeout 1d; counter; }",
    ...(limit === undefined ? [] : ["sent", "received"].map((name) => `set ${name} { ${LIMITED} }`)),
    "",
    "chain refuse {",
    "  update @refused { iifname counter }",
    "  meta l4proto tcp reject with tcp reset",
    "  reject with icmpx admin-prohibited",
    "}",
    "",
    "chain resolvers {",
    ...resolvers.map((to) => `  ${matchOf({ to, port: 53 })} accept`),
    "}",
    "",
    "chain exceptions {",
    ...exceptions.map((exception) => `  ${matchOf(exception)} accept`),
    "}",
    "",
    // To this machine itself. A range does not open it: only an exception with this very address does.
    "chain exceptions_host {",
    ...exceptions.filter(({ to }) => isSingle(to)).map((exception) => `  ${matchOf(exception)} accept`),
    "}",
    "",
    "chain input {",
    "  type filter hook input priority filter - 10; policy accept;",
    `  iifname != "${BRIDGE_PREFIX}*" accept`,
    ...(limit === undefined ? [] : [`  update @sent { iifname ${limit} } drop`]),
    "  ct direction reply accept",
    // Without it an IPv6 neighbour finds nobody.
    "  icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
    "  jump resolvers",
    "  jump exceptions_host",
    "  goto refuse",
    "}",
    "",
    "chain forward {",
    "  type filter hook forward priority filter - 10; policy accept;",
    ...(limit === undefined ? [] : [`  oifname "${BRIDGE_PREFIX}*" update @received { oifname ${limit} } drop`]),
    `  iifname != "${BRIDGE_PREFIX}*" accept`,
    ...(limit === undefined ? [] : [`  update @sent { iifname ${limit} } drop`]),
    "  ct direction reply accept",
    `  oifname "${BRIDGE_PREFIX}*" goto refuse`,
    "  jump resolvers",
    "  jump exceptions",
    "  ip daddr @blocked4 goto refuse",
    "  ip6 daddr @blocked6 goto refuse",
    "}",
    ...(limit === undefined
      ? []
      : [
          "",
          "chain output {",
          "  type filter hook output priority filter - 10; policy accept;",
          `  oifname "${BRIDGE_PREFIX}*" update @received { oifname ${limit} } drop`,
          "}",
        ]),
  ];
  const body = lines.map((line) => (line === "" ? "" : `  ${line}`)).join("\n");
  return `${REMOVE_TABLE}table ${TABLE} {\n${body}\n}\n`;
}

const LIMITED = "type ifname; size 4096; flags dynamic,timeout; timeout 1h;";

function limitOf(mbit: number): string {
  const bytes = Math.round((mbit * 1_000_000) / 8);
  return `limit rate over ${bytes} bytes/second burst ${BURST_BYTES} bytes`;
}

function addressSet(name: string, type: string, ranges: readonly Cidr[], family: 4 | 6): string[] {
  const elements = ranges.filter((range) => range.family === family).map(formatCidr);
  return [`set ${name} { type ${type}; flags interval; auto-merge;`, `  elements = { ${elements.join(", ")} }`, "}"];
}

function matchOf({ to, port, protocol }: Exception): string {
  const address = `${to.family === 4 ? "ip" : "ip6"} daddr ${formatCidr(to)}`;
  if (port === undefined) return address;
  return protocol === undefined
    ? `${address} meta l4proto { tcp, udp } th dport ${port}`
    : `${address} ${protocol} dport ${port}`;
}
