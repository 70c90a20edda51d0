import { describe, expect, it } from "vitest";
import { cidr } from "../../src/isolation/addresses.ts";
import { furtherNetworks } from "../../src/isolation/blocked.ts";
import { renderRules } from "../../src/isolation/rules.ts";

const nothing = { networks: [], resolvers: [], exceptions: [] };

/** The lines of one chain, without what every line begins with. */
function chain(script: string, name: string): string[] {
  const lines = script.split("\n").map((line) => line.trim());
  const begin = lines.indexOf(`chain ${name} {`);
  return begin < 0 ? [] : lines.slice(begin + 1, lines.indexOf("}", begin));
}

describe("the rules", () => {
  it("replace the whole table in one transaction", () => {
    expect(renderRules(nothing)).toMatch(
      /^table inet gpunode\ndelete table inet gpunode\ntable inet gpunode \{\n[\s\S]*\n\}\n$/,
    );
  });

  it.each([
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8", "224.0.0.0/4"],
    ["fc00::/7", "fe80::/10", "ff00::/8", "::/96", "::ffff:0:0/96"],
    // Through NAT64 and 6to4: 10.0.0.0/8, 192.168.0.0/16, 169.254.0.0/16.
    ["64:ff9b::a00:0/104", "64:ff9b::c0a8:0/112", "64:ff9b::a9fe:0/112", "2002:a00::/24", "2002:c0a8::/32"],
  ])("block %s and the like", (...ranges) => {
    const script = renderRules(nothing);
    for (const range of ranges) expect(script).toMatch(new RegExp(`[ {]${range.replaceAll(".", "\\.")}[, ]`));
  });

  it("block the public networks this machine is attached to", () => {
    expect(renderRules({ ...nothing, networks: [cidr("45.9.0.0/24"), cidr("2a09:9::/64")] })).toMatch(
      /45\.9\.0\.0\/24 \}[\s\S]*2a09:9::\/64 \}/,
    );
  });

  it("let a workload's packets to this machine through for replies, IPv6 neighbours, and nothing else", () => {
    expect(chain(renderRules(nothing), "input")).toEqual([
      "type filter hook input priority filter - 10; policy accept;",
      'iifname != "gpn-*" accept',
      "ct direction reply accept",
      "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
      "jump resolvers",
      "jump exceptions_host",
      "goto refuse",
    ]);
  });

  it("judge another workload before any exception", () => {
    expect(chain(renderRules(nothing), "forward")).toEqual([
      "type filter hook forward priority filter - 10; policy accept;",
      'iifname != "gpn-*" accept',
      "ct direction reply accept",
      'oifname "gpn-*" goto refuse',
      "jump resolvers",
      "jump exceptions",
      "ip daddr @blocked4 goto refuse",
      "ip6 daddr @blocked6 goto refuse",
    ]);
  });

  it("open name servers on port 53 alone", () => {
    const script = renderRules({ ...nothing, resolvers: [cidr("192.168.1.1"), cidr("fd00::53")] });
    expect(chain(script, "resolvers")).toEqual([
      "ip daddr 192.168.1.1 meta l4proto { tcp, udp } th dport 53 accept",
      "ip6 daddr fd00::53 meta l4proto { tcp, udp } th dport 53 accept",
    ]);
  });

  it("open exceptions as they are written; this machine only by its very address", () => {
    const exceptions = [
      { to: cidr("192.168.1.10"), port: 2049, protocol: "tcp" as const },
      { to: cidr("10.0.0.0/24") },
      { to: cidr("fd00::/64"), port: 443 },
    ];
    const script = renderRules({ ...nothing, exceptions });
    expect(chain(script, "exceptions")).toEqual([
      "ip daddr 192.168.1.10 tcp dport 2049 accept",
      "ip daddr 10.0.0.0/24 accept",
      "ip6 daddr fd00::/64 meta l4proto { tcp, udp } th dport 443 accept",
    ]);
    expect(chain(script, "exceptions_host")).toEqual(["ip daddr 192.168.1.10 tcp dport 2049 accept"]);
  });

  it("hold both directions to the bandwidth, by bridge; without one there is no limit at all", () => {
    expect(renderRules(nothing)).not.toContain("rate over");
    const script = renderRules({ ...nothing, bandwidthMbit: 100 });
    const limit = "limit rate over 12500000 bytes/second burst 262144 bytes";
    const sent = `update @sent { iifname ${limit} } drop`;
    const received = `oifname "gpn-*" update @received { oifname ${limit} } drop`;
    expect(chain(script, "input")).toContain(sent);
    expect(chain(script, "forward")).toEqual(expect.arrayContaining([sent, received]));
    expect(chain(script, "output")).toContain(received);
  });
});

describe("networks beyond those that are always blocked", () => {
  const further = (...texts: string[]) => furtherNetworks(texts.map(cidr));

  it("are what is public, each once, in one order whatever order they come in", () => {
    const expected = [cidr("45.9.0.0/16"), cidr("2a09:9::/64")];
    expect(further("2a09:9::/64", "192.168.1.0/24", "45.9.1.0/24", "45.9.0.0/16", "fd00::/64")).toEqual(expected);
    expect(further("45.9.0.0/16", "45.9.1.0/24", "2a09:9::/64", "45.9.0.0/16")).toEqual(expected);
  });

  it("are not the halves of a default route", () => {
    expect(further("0.0.0.0/1", "128.0.0.0/1", "2000::/3", "::/0")).toEqual([]);
  });
});
