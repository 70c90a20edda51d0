import { type Cidr, cidr, covers, embedded } from "./addresses.ts";

/**
 * Addresses that are nobody's on the internet, so that whoever answers there is on the owner's network, is the machine itself, or is
 * the cloud it runs in. Source: the IANA special-purpose address registries (RFC 6890 and its updates), all entries that are
 * not globally reachable, and the multicast ranges.
 */
const IPV4 = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/4",
  "240.0.0.0/4",
].map(cidr);

const IPV6 = [
  // Unspecified, loopback, and addresses "compatible" with IPv4.
  "::/96",
  "::ffff:0:0/96",
  "64:ff9b:1::/48",
  "100::/64",
  // Protocol assignments, with Teredo's tunnels.
  "2001::/23",
  "2001:db8::/32",
  "3fff::/20",
  "5f00::/16",
  "fc00::/7",
  "fe80::/10",
  "fec0::/10",
  "ff00::/8",
].map(cidr);

/** NAT64 (RFC 6052) and 6to4 (RFC 3056): what follows the prefix is an IPv4 address, reached through a translator on the way. */
const TRANSLATED = ["64:ff9b::/96", "2002::/16"].map(cidr);

/** Never reached from a workload, whatever machine this is; an exception opens them one by one. */
export const ALWAYS_BLOCKED: readonly Cidr[] = [
  ...IPV4,
  ...IPV6,
  ...TRANSLATED.flatMap((network) => IPV4.map((range) => embedded(network, range))),
];

/** A shorter prefix is a default route in halves, as VPN clients set it ("0.0.0.0/1", "2000::/3"), and no network of somebody's. */
const SHORTEST_PREFIX = { 4: 8, 6: 16 } as const;

/**
 * Of the networks this machine is attached to, or has a route to, those that are not blocked already: public addresses of a rack, a
 * provider's IPv6 prefix at home, the far end of a VPN. In a stable order, without what another one covers.
 */
export function furtherNetworks(networks: readonly Cidr[]): Cidr[] {
  const unknown = networks.filter(
    (network) =>
      network.prefix >= SHORTEST_PREFIX[network.family] && !ALWAYS_BLOCKED.some((range) => covers(range, network)),
  );
  const byWidth = [...unknown].sort(
    (a, b) => a.family - b.family || a.prefix - b.prefix || (a.start < b.start ? -1 : a.start > b.start ? 1 : 0),
  );
  const kept: Cidr[] = [];
  for (const network of byWidth) if (!kept.some((wider) => covers(wider, network))) kept.push(network);
  return kept;
}
