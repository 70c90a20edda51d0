import { expect, it } from "vitest";
import { uplink } from "../../src/host/uplink.ts";

const HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
const route = (device: string, destination: string, mask: string) =>
  `${device}\t${destination}\t0101A8C0\t0003\t0\t0\t100\t${mask}\t0\t0\t0\n`;
const machine = (routes: string, mtus: Record<string, string>) => (path: string) =>
  path === "/proc/net/route" ? HEAD + routes : mtus[/net\/(.+)\/mtu$/.exec(path)?.[1] ?? ""];

it("is the device of the default route with the smallest packets, a VPN's halves included", () => {
  const [lan, wan] = [route("eth0", "0001A8C0", "00FFFFFF"), route("eth0", "00000000", "00000000")];
  expect(uplink(machine(lan + wan, { eth0: "1500\n" }))).toEqual({ device: "eth0", mtu: 1500 });
  const halves = route("wg0", "00000000", "00000080") + route("wg0", "00000080", "00000080");
  expect(uplink(machine(wan + halves, { eth0: "1500\n", wg0: "1420\n" }))).toEqual({ device: "wg0", mtu: 1420 });
  const two = wan + route("wlan0", "00000000", "00000000");
  expect(uplink(machine(two, { eth0: "9000\n", wlan0: "1500\n" }))).toEqual({ device: "wlan0", mtu: 1500 });
});

it("is unknown where nothing leads out, or what is read is nonsense", () => {
  expect(uplink(() => undefined)).toBeUndefined();
  expect(uplink(machine(route("eth0", "0001A8C0", "00FFFFFF"), { eth0: "1500" }))).toBeUndefined();
  for (const mtu of ["", "x", "-1", "0", "1.5"])
    expect(uplink(machine(route("eth0", "00000000", "00000000"), { eth0: mtu }))).toBeUndefined();
});
