import { describe, expect, it } from "vitest";
import {
  parseCpuTicks,
  parseLoadAverage1,
  parseMeminfo,
  parseNetDev,
  parsePressureSome10,
} from "../../src/host/proc.ts";

const STAT = `cpu  10132153 290696 3084719 46828483 16683 0 25195 175628 5 0
cpu0 1393280 32966 572056 13343292 6130 0 17875 23933 0 0
intr 1462898 0 0
ctxt 115315
btime 1769850000
`;

const MEMINFO = `MemTotal:       263856632 kB
MemFree:         2040112 kB
MemAvailable:  191023444 kB
Buffers:          701020 kB
HugePages_Total:       0
`;

const NET_DEV = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 5000 50    0    0    0     0          0         0     5000      50    0    0    0     0       0          0
enp5s0:1000000007 900 0 0 0 0 0 0 2000000009 800 0 0 0 0 0 0
 wlan0: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0
docker0: 77 1 0 0 0 0 0 0 77 1 0 0 0 0 0 0
veth12ab: 77 1 0 0 0 0 0 0 77 1 0 0 0 0 0 0
br-0af12: 77 1 0 0 0 0 0 0 77 1 0 0 0 0 0 0
bond0: 77 1 0 0 0 0 0 0 77 1 0 0 0 0 0 0
enp5s0.12: 77 1 0 0 0 0 0 0 77 1 0 0 0 0 0 0
`;

describe("/proc/stat", () => {
  it("counts I/O wait as idle and steal as busy", () => {
    const busy = 10132153 + 290696 + 3084719 + 0 + 25195 + 175628;
    expect(parseCpuTicks(STAT)).toEqual({ busy, total: busy + 46828483 + 16683 });
  });

  it("reads a kernel with four columns", () => {
    expect(parseCpuTicks("cpu 1 2 3 4\n")).toEqual({ busy: 6, total: 10 });
  });

  it.each(["", "cpu\n", "cpu  a b c d\n", "cpu0 1 2 3 4\n", "cpu  1 2 3\n", "cpu  -1 2 3 4\n"])(
    "is unknown in %j",
    (text) => {
      expect(parseCpuTicks(text)).toBeUndefined();
    },
  );
});

describe("/proc/loadavg", () => {
  it("is the average over a minute", () => expect(parseLoadAverage1("0.52 0.58 0.59 2/1234 5678\n")).toBe(0.52));
  it.each(["", "nan 1 1", "-1.00 0 0", "1e3 0 0"])("is unknown in %j", (text) => {
    expect(parseLoadAverage1(text)).toBeUndefined();
  });
});

describe("/proc/meminfo", () => {
  it("reads total and available", () => {
    expect(parseMeminfo(MEMINFO)).toEqual({ totalMiB: 257672, availableMiB: 186546 });
  });

  it("leaves available out where an old kernel does not tell it", () => {
    expect(parseMeminfo("MemTotal:  1024 kB\nMemFree: 512 kB\n")).toEqual({ totalMiB: 1 });
  });

  it.each(["", "MemTotal: lots kB\n", "MemTotal: 5\n", "XMemTotal:  1024 kB\n"])("is unknown in %j", (text) => {
    expect(parseMeminfo(text)).toBeUndefined();
  });
});

describe("/proc/pressure/memory", () => {
  it("is `some` over ten seconds", () => {
    const text = "some avg10=12.34 avg60=5.00 avg300=1.00 total=123\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=1\n";
    expect(parsePressureSome10(text)).toBe(12.34);
  });
  it.each(["", "full avg10=1.00 avg60=0.00\n", "some avg10=x avg60=0\n"])("is unknown in %j", (text) => {
    expect(parsePressureSome10(text)).toBeUndefined();
  });
});

describe("/proc/net/dev", () => {
  it("sums what the machine itself sent and received", () => {
    expect(parseNetDev(NET_DEV)).toEqual({ rxBytes: 1000000017, txBytes: 2000000029 });
  });

  it("is 0 on a machine that has only loopback, and unknown where there is no table", () => {
    expect(parseNetDev("    lo: 5 5 0 0 0 0 0 0 5 5 0 0 0 0 0 0\n")).toEqual({ rxBytes: 0, txBytes: 0 });
    expect(parseNetDev("")).toBeUndefined();
    expect(parseNetDev("Inter-|   Receive\n face |bytes\n")).toBeUndefined();
  });

  it("leaves out a line that breaks off", () => {
    expect(parseNetDev("eth0: 5 5 0\neth1: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n")).toEqual({ rxBytes: 1, txBytes: 2 });
  });
});

it("counters that no machine comes to are mangled ones", () => {
  const huge = "99999999999999999999";
  expect(parseMeminfo(`MemTotal:       ${huge} kB\n`)).toBeUndefined();
  expect(parseNetDev(`eth0: ${huge} 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n`)).toEqual({ rxBytes: 0, txBytes: 0 });
  const most = String(Number.MAX_SAFE_INTEGER);
  const line = (name: string) => `${name}: ${most} 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n`;
  expect(parseNetDev(line("eth0") + line("eth1"))).toBeUndefined();
});
