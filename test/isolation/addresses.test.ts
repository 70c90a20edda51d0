import { describe, expect, it } from "vitest";
import { cidr, covers, embedded, formatCidr, parseCidr } from "../../src/isolation/addresses.ts";
import { bridgeOf } from "../../src/isolation/bridge.ts";
import { ipv4Routes, ipv6Routes, nameServers, readSurroundings } from "../../src/isolation/surroundings.ts";

describe("ranges of addresses", () => {
  it.each([
    ["10.0.0.0/8", "10.0.0.0/8"],
    ["10.1.2.3/8", "10.0.0.0/8"],
    ["192.168.1.10", "192.168.1.10"],
    ["192.168.1.10/32", "192.168.1.10"],
    ["0.0.0.0/0", "0.0.0.0/0"],
    ["fd00::1/64", "fd00::/64"],
    ["::1", "::1"],
    ["::ffff:192.168.1.1", "::ffff:c0a8:101"],
    ["2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["1:2:3:4:5:6:7:8/127", "1:2:3:4:5:6:7:8/127"],
  ])("%s is %s", (text, written) => {
    expect(formatCidr(cidr(text))).toBe(written);
  });

  it.each(["", "10.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8/8", "fe80::1%eth0", "::/129", "host"])(
    "%s is none",
    (text) => {
      expect(parseCidr(text)).toBeUndefined();
    },
  );

  it("cover what lies in them, of their own family", () => {
    expect(covers(cidr("10.0.0.0/8"), cidr("10.255.0.0/16"))).toBe(true);
    expect(covers(cidr("10.0.0.0/8"), cidr("10.0.0.0/7"))).toBe(false);
    expect(covers(cidr("10.0.0.0/8"), cidr("11.0.0.1"))).toBe(false);
    expect(covers(cidr("::/0"), cidr("10.0.0.1"))).toBe(false);
  });

  it("have a place in IPv6 where something translates", () => {
    expect(formatCidr(embedded(cidr("64:ff9b::/96"), cidr("192.168.0.0/16")))).toBe("64:ff9b::c0a8:0/112");
    expect(formatCidr(embedded(cidr("2002::/16"), cidr("10.1.2.3")))).toBe("2002:a01:203::/48");
  });
});

describe("this machine's place in the network", () => {
  it("is read from the kernel's IPv4 routes, with the router", () => {
    const text = `Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wg0\t0000092D\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
gpn-0123456789a\t0000102D\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
`;
    expect(ipv4Routes(text)).toEqual({
      networks: [cidr("192.168.1.0/24"), cidr("45.9.0.0/16")],
      router: "192.168.1.1",
    });
  });

  it("is read from the kernel's IPv6 routes, without loopback and our own bridges", () => {
    const zeros = "0".repeat(32);
    const line = (destination: string, length: string, device: string) =>
      `${destination} ${length} ${zeros} 00 ${zeros} 00000100 00000001 00000000 00000001     ${device}`;
    const lan = "2a090009000000000000000000000000";
    const text = [line(lan, "40", "eth0"), line(lan, "80", "lo"), line(lan, "40", "gpn-0123456789a"), ""].join("\n");
    expect(ipv6Routes(text)).toEqual([cidr("2a09:9::/64")]);
  });

  it("includes the name servers of resolv.conf(5), comments left out", () => {
    expect(nameServers("# nameserver 1.1.1.1\nnameserver 192.168.1.1\n nameserver\tfd00::53 \nsearch lan\n")).toEqual([
      "192.168.1.1",
      "fd00::53",
    ]);
  });

  it("can be read on this machine", async () => {
    const { networks, resolvers, hasIpv6 } = await readSurroundings();
    expect([...networks, ...resolvers].every(({ prefix }) => prefix >= 8)).toBe(true);
    expect(typeof hasIpv6).toBe("boolean");
  });
});

it("a bridge's name fits the kernel, is found again, and is nobody else's", () => {
  const name = bridgeOf("node", "gpunode-w-1");
  expect(name).toMatch(/^gpn-[0-9a-f]{11}$/);
  expect(bridgeOf("node", "gpunode-w-1")).toBe(name);
  expect(new Set([name, bridgeOf("node", "gpunode-w-2"), bridgeOf("other", "gpunode-w-1")]).size).toBe(3);
});
