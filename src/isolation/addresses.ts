import { isIPv4, isIPv6 } from "node:net";

/** A range of addresses; `start` has no bits beyond `prefix`. */
export interface Cidr {
  readonly family: 4 | 6;
  readonly start: bigint;
  readonly prefix: number;
}

const WIDTH = { 4: 32, 6: 128 } as const;

/** Reads `10.0.0.0/8`, `fd00::/64`, or one address; undefined where the text is none. Bits beyond the prefix are dropped. */
export function parseCidr(text: string): Cidr | undefined {
  const [address = "", length, ...rest] = text.split("/");
  const family = isIPv4(address) ? 4 : isIPv6(address) && !address.includes("%") ? 6 : undefined;
  if (family === undefined || rest.length > 0) return undefined;
  const width = WIDTH[family];
  if (length !== undefined && (!/^\d{1,3}$/.test(length) || Number(length) > width)) return undefined;
  const prefix = length === undefined ? width : Number(length);
  const beyond = BigInt(width - prefix);
  return { family, start: (numberOf(address) >> beyond) << beyond, prefix };
}

/** The same for text that is known to be right: our own tables. */
export function cidr(text: string): Cidr {
  const parsed = parseCidr(text);
  if (parsed === undefined) throw new Error(`${text} is no range of addresses`);
  return parsed;
}

/** As nftables reads it; a single address goes without its prefix. */
export function formatCidr({ family, start, prefix }: Cidr): string {
  const address = family === 4 ? octets(start) : new URL(`http://[${groups(start)}]`).hostname.slice(1, -1);
  return prefix === WIDTH[family] ? address : `${address}/${prefix}`;
}

/** True where every address of `inner` lies in `outer`. */
export function covers(outer: Cidr, inner: Cidr): boolean {
  const beyond = BigInt(WIDTH[outer.family] - outer.prefix);
  return (
    outer.family === inner.family && outer.prefix <= inner.prefix && outer.start === (inner.start >> beyond) << beyond
  );
}

/** True where the range is one address. */
export function isSingle({ family, prefix }: Cidr): boolean {
  return prefix === WIDTH[family];
}

/**
 * IPv6 addresses that stand for IPv4 ones, because something on the way turns them into those: `network` is an IPv6 prefix after which
 * the 32 bits of the IPv4 address follow.
 */
export function embedded(network: Cidr, inner: Cidr): Cidr {
  return {
    family: 6,
    start: network.start | (inner.start << BigInt(128 - network.prefix - 32)),
    prefix: network.prefix + inner.prefix,
  };
}

function numberOf(address: string): bigint {
  if (isIPv4(address)) return address.split(".").reduce((sum, octet) => (sum << 8n) | BigInt(octet), 0n);
  // The URL parser writes an IPv4 tail as two groups.
  const plain = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = "", tail] = plain.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = new Array<string>(8 - left.length - right.length).fill("0");
  return [...left, ...zeros, ...right].reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
}

function octets(value: bigint): string {
  return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join(".");
}

function groups(value: bigint): string {
  return [112n, 96n, 80n, 64n, 48n, 32n, 16n, 0n].map((shift) => ((value >> shift) & 0xffffn).toString(16)).join(":");
}
