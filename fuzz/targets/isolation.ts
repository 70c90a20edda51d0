import { networkException } from "../../src/config/network-exception.ts";
import { covers, formatCidr, parseCidr } from "../../src/isolation/addresses.ts";
import { ALWAYS_BLOCKED, furtherNetworks } from "../../src/isolation/blocked.ts";
import { type Exception, renderRules } from "../../src/isolation/rules.ts";
import { ipv4Routes, ipv6Routes, nameServers } from "../../src/isolation/surroundings.ts";
import type { Draw } from "../draw.ts";
import { hostileText, mutatedLines, mutatedText } from "../hostile.ts";
import { ensure, plainGroup, target } from "../target.ts";

const ADDRESSES = [
  "192.168.1.10:2049/tcp",
  "10.0.0.0/24",
  "[fd00::5]:443",
  "fd00::/64",
  "::ffff:10.0.0.1",
  "0.0.0.0/0",
  "8.8.8.8",
];
const ROUTES =
  "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
  "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n" +
  "eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
const ROUTES6 =
  "20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0\n" +
  "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0\n";
const RESOLV = "search lan\nnameserver 192.168.1.1\nnameserver 127.0.0.53\noptions edns0\n";

function addressText(draw: Draw): string {
  return draw.any(
    () => draw.of(ADDRESSES),
    () => mutatedText(draw, draw.of(ADDRESSES), ["/", ":", "::", "[", "]", "%eth0", "/33", "/129", "}", "\n", ";"]),
    () => hostileText(draw),
  );
}

/** What an owner excepts: only addresses come into the script, in nftables' own spelling, and what is read is written as it was meant. */
function onlyAddresses(texts: readonly string[]): void {
  const exceptions = texts.flatMap((text): Exception[] => {
    const exception = networkException(text);
    if (exception === undefined) return [];
    const to = parseCidr(exception.address);
    ensure(to !== undefined, () => `the configuration takes ${JSON.stringify(text)}, the rules do not`);
    const again = parseCidr(formatCidr(to));
    ensure(again !== undefined && covers(again, to) && covers(to, again), () => `${formatCidr(to)} is not ${text}`);
    const { port, protocol } = exception;
    return [{ to, ...(port !== undefined && { port }), ...(protocol !== undefined && { protocol }) }];
  });
  const script = renderRules({ networks: [], resolvers: [], exceptions });
  const depth = [...script].reduce((open, char) => open + (char === "{" ? 1 : char === "}" ? -1 : 0), 0);
  ensure(depth === 0, "the braces of the script do not fit");
  const verdicts = script.split("\n").filter((line) => /^ *ip6? daddr .* accept$/.test(line));
  for (const line of verdicts) {
    ensure(
      /^ *ip6? daddr [0-9a-f.:/]+( (meta l4proto|tcp|udp|th) [\w{}, ]+)* accept$/.test(line),
      () => `no rule: ${line}`,
    );
  }
  ensure(verdicts.length >= exceptions.length, "an exception has no rule");
}

interface Texts {
  routes: string;
  routes6: string;
  resolv: string;
}

export const isolationGroup = plainGroup(
  target<string[]>({
    name: "exceptions of the owner's network, as rules",
    inputs: 20_000,
    make: (draw) => draw.list(4, () => addressText(draw)),
    check: onlyAddresses,
  }),
  target<Texts>({
    name: "routes and name servers of the machine",
    inputs: 30_000,
    make: (draw) => ({
      routes: draw.any(
        () => mutatedLines(draw, ROUTES, /\t/, ["FFFFFFFF", "00000000", "gpn-1"]),
        () => mutatedText(draw, ROUTES),
      ),
      routes6: draw.any(
        () => mutatedLines(draw, ROUTES6, / /, ["80", "ff", "00", "lo"]),
        () => mutatedText(draw, ROUTES6),
      ),
      resolv: mutatedText(draw, RESOLV, ["nameserver ", "fe80::1%eth0", "::1"]),
    }),
    check({ routes, routes6, resolv }) {
      nameServers(resolv);
      for (const network of furtherNetworks([...ipv4Routes(routes).networks, ...ipv6Routes(routes6)])) {
        const width = network.family === 4 ? 32 : 128;
        ensure(network.prefix > 0 && network.prefix <= width, `a prefix of ${network.prefix}`);
        ensure(!ALWAYS_BLOCKED.some((range) => covers(range, network)), "it is blocked already");
        ensure(parseCidr(formatCidr(network)) !== undefined, `${formatCidr(network)} is no network`);
      }
    },
  }),
);
