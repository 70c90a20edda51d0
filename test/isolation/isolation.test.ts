import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Docker from "dockerode";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { PROBE_PORT, type Target } from "../../src/isolation/probe-program.ts";
import { course, patiently, Site } from "../agent/rig.ts";
import { until } from "../engine/harness.ts";
import { engineIsPrivate, haveEngine, pushImage, registryAddress, smallImage } from "../support/engine.ts";
import { type Driver, PLACES, PORT, World } from "./world.ts";

const SLOW = 120_000;
const at = (host: string, port = PORT): Target => ({ host, port });
const { machine } = PLACES;
/** Whoever listens on the owner's side, none of which a workload is to reach. */
const OWNERS = [PLACES.lan, PLACES.rack, PLACES.cgnat, PLACES.metadata].map((host) => at(host));
const OWNERS6 = [PLACES.lan6, PLACES.rack6].map((host) => at(host));

/** A service of the machine itself, on every address it has. */
const SERVICE = `require("node:net").createServer((s) => s.destroy()).listen(${PORT}, "::", () => process.send("listening"));
process.on("disconnect", () => process.exit(0));`;

describe.runIf(haveEngine && engineIsPrivate)("isolation", { timeout: SLOW }, () => {
  let world: World;
  beforeAll(async () => {
    world = await World.open();
    await world.serve(SERVICE);
  }, SLOW);
  afterAll(async () => {
    await world[Symbol.asyncDispose]();
    expect(readdirSync("/run/netns").filter((name) => name.startsWith(world.name))).toEqual([]);
  }, SLOW);

  /** Whatever a test that failed has left must not fail the next one. */
  afterEach(async () => {
    const engine = new Docker({ socketPath: world.engine.socket });
    for (const { Id } of await engine.listContainers({ all: true }))
      await engine.getContainer(Id).remove({ force: true });
    for (const { Id } of await engine.listNetworks({ filters: { label: ["org.gpunode.node"] } })) {
      await engine.getNetwork(Id).remove();
    }
    await world.run(world.nft, "delete", "table", "inet", "gpunode").catch(() => undefined);
  });

  /** How each attempt of a workload ended: true where it got through. */
  async function reached(driver: Driver, from: { addresses: string[] }, targets: readonly Target[]) {
    const outcomes = await driver.do("try", from.addresses[0] ?? "", [...targets]);
    return outcomes.map((outcome) => outcome === "reached");
  }

  const all = (targets: readonly unknown[], value: boolean) => targets.map(() => value);

  it("without it a workload reaches all of them, so that what follows can fail", async () => {
    await using driver = world.driver();
    const a = await driver.do("workload", { name: "a", unguarded: true, ipv6: "2a00:5:1::/64" });
    const b = await driver.do("workload", { name: "b", unguarded: true, ipv6: "2a00:5:2::/64" });
    const host = [machine.lan, machine.rack, machine.lan6, machine.rack6, ...a.gateways].map((address) => at(address));
    const targets = [at(PLACES.internet), at(PLACES.internet6), ...OWNERS, ...OWNERS6, ...host];
    // A new IPv6 address is looked at for a second before it may be used.
    await until(async () => (await reached(driver, a, targets)).every((got) => got), 20_000);
    for (const name of ["a", "b"]) await driver.do("end", name);
    expect(b.addresses).toHaveLength(2);
    expect(await world.table()).toBeUndefined();
  });

  it("lets a workload reach the internet, and neither the LAN, nor the machine, nor another workload", async () => {
    await using driver = world.driver();
    expect(await driver.do("isolate", {})).toBeUndefined();
    const a = await driver.do("workload", { name: "a", ipv6: "2a00:5:1::/64" });
    const b = await driver.do("workload", { name: "b", ipv6: "2a00:5:2::/64" });
    const internet = [at(PLACES.internet), at(PLACES.internet6), at("any.name.example")];
    await until(async () => (await reached(driver, a, internet)).every((got) => got), 20_000);
    const host = [machine.lan, machine.rack, machine.lan6, machine.rack6, ...a.gateways, ...b.gateways];
    const others = b.addresses.map((address) => at(address, PROBE_PORT));
    const closed = [...OWNERS, ...OWNERS6, ...host.map((address) => at(address)), ...others];
    expect(a.addresses).toHaveLength(2);
    expect(await reached(driver, a, closed)).toEqual(all(closed, false));
    for (const name of ["a", "b"]) await driver.do("end", name);
    expect(await driver.do("networks")).toEqual([]);
  });

  it("opens what the owner allows, and only that: a port, a range without the machine in it", async () => {
    await using driver = world.driver();
    const allow = [
      { to: PLACES.lan, port: PORT, protocol: "tcp" as const },
      { to: "45.9.0.0/24" },
      { to: PLACES.lan6, port: PORT },
      { to: PLACES.cgnat, port: PORT + 1 },
      { to: "10.213.0.0/16" },
    ];
    await driver.do("isolate", { allow });
    const a = await driver.do("workload", { name: "a", ipv6: "2a00:5:1::/64" });
    const b = await driver.do("workload", { name: "b" });
    const open = [at(PLACES.lan), at(PLACES.rack), at(PLACES.lan6)];
    await until(async () => (await reached(driver, a, open)).every((got) => got), 20_000);
    const closed = [
      ...[at(PLACES.cgnat), at(PLACES.metadata), at(PLACES.rack6), at(machine.rack), at(machine.lan)],
      at(a.gateways[0] ?? ""),
      at(b.addresses[0] ?? "", PROBE_PORT),
    ];
    expect(await reached(driver, a, closed)).toEqual(all(closed, false));
    for (const name of ["a", "b"]) await driver.do("end", name);
  });

  it("leaves published ports working, from the machine and from the LAN", async () => {
    await using driver = world.driver();
    await driver.do("isolate", {});
    const ports = [{ container: PROBE_PORT, host: 30123, protocol: "tcp" as const }];
    const a = await driver.do("workload", { name: "a", ports });
    const program = (host: string) =>
      `const s=require("net").connect(30123,"${host}");s.write('{"targets":[],"timeoutMs":1}\\n');s.pipe(process.stdout)`;
    for (const host of ["127.0.0.1", machine.lan]) {
      expect(await world.run(process.execPath, "-e", program(host))).toBe("[]");
    }
    expect(await world.runOnLan(process.execPath, "-e", program(machine.lan))).toBe("[]");
    expect(await reached(driver, a, OWNERS)).toEqual(all(OWNERS, false));
    await driver.do("end", "a");
  });

  it("sets the rules again when somebody flushes them or takes one out, and cuts what got through meanwhile", async () => {
    await using driver = world.driver();
    await driver.do("isolate", {});
    const a = await driver.do("workload", { name: "a" });
    // Writes to the LAN host over one connection until it breaks; begun while the rules are gone.
    const talker = `const { connect } = require("node:net");
const begin = () => {
  const socket = connect(${PORT + 1}, "${PLACES.lan}");
  let through = false;
  socket.once("connect", () => { through = true; console.log("through"); setInterval(() => socket.write("x"), 50); });
  socket.once("error", () => { if (through) { console.log("cut"); process.exit(0); } else setTimeout(begin, 5); });
};
begin();`;
    await world.serveOnLan(PORT + 1);
    await driver.do("workload", { name: "talker", program: talker });
    await driver.whileHalted(async () => {
      await world.run(world.nft, "flush", "chain", "inet", "gpunode", "forward");
      // It tries every 5 ms.
      await sleep(2000);
    });
    expect(await driver.do("output", "talker")).toBe("through\ncut\n");
    // With everything else: Docker's own rules come back with Docker.
    await world.run(world.nft, "flush", "ruleset");
    await until(async () => (await world.table())?.includes("goto refuse") === true, 20_000);
    expect(await reached(driver, a, OWNERS)).toEqual(all(OWNERS, false));
    expect(driver.log).toContain("set again");
    await world.engine.restart();
    for (const name of ["a", "talker"]) await driver.do("end", name);
  });

  it("starts nothing where the rules are there and do not hold, and says which way is open", async () => {
    // An nft that leaves half of the work undone.
    const sabotage = join(world.engine.dir, "nft-that-forgets");
    writeFileSync(
      sabotage,
      `#!/bin/sh\nif [ "$1" = -f ]; then sed '/ip6* daddr/d; s/goto refuse/accept/' | '${world.nft}' -f -; else exec '${world.nft}' "$@"; fi\n`,
      { mode: 0o755 },
    );
    await using driver = world.driver();
    await driver.do("isolate", { nft: sabotage });
    const refused = await driver.do("open", "a").catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "policy_denied" });
    const { message } = refused as Error;
    expect(message).toContain(
      "network.isolate_lan is true, but it does not hold: a container reaches this machine at 10.213.",
    );
    expect(message).toContain(`this machine at ${machine.lan}`);
    expect(message).toContain("network.isolate_lan = false");
    expect(await driver.do("networks")).toEqual([]);
  });

  it("starts nothing where nft is missing, or the daemon lacks CAP_NET_ADMIN, and says what to do", async () => {
    await using without = world.driver();
    expect(await without.do("isolate", { nft: "/nowhere/nft" })).toContain("install the package nftables");
    await expect(without.do("open", "a")).rejects.toMatchObject({ code: "policy_denied" });
    await using weak = world.driver({}, ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
    expect(await weak.do("isolate", {})).toContain("CAP_NET_ADMIN");
    await expect(weak.do("open", "a")).rejects.toMatchObject({ code: "policy_denied" });
    expect(await world.table()).toBeUndefined();
  });

  it("keeps the rules while a workload lives without an agent; the next one takes networks and rules away at the end", async () => {
    await using first = world.driver();
    await first.do("isolate", {});
    const a = await first.do("workload", { name: "a" });
    await first.do("workload", { name: "stray" });
    await first.kill();
    expect(await world.table()).toContain("goto refuse");
    await using second = world.driver();
    await second.do("isolate", { live: ["a"] });
    expect(await reached(second, a, OWNERS)).toEqual(all(OWNERS, false));
    await second.do("removeContainer", "stray");
    await second.do("refresh");
    await until(async () => !(await second.do("networks")).includes("stray"), 20_000);
    expect(await second.do("networks")).toEqual(["a"]);
    await second.do("leave");
    expect(await world.table()).toContain("goto refuse");
    await using third = world.driver();
    await third.do("isolate", { live: ["a"] });
    await third.do("removeContainer", "a");
    await third.do("end", "a");
    await third.do("leave");
    expect(await world.table()).toBeUndefined();
  });

  it.each([
    [1380, 1380],
    [9000, 1500],
    // The world has IPv6, whose every link carries 1,280.
    [100, 1280],
  ])("a workload's packets fit through an uplink of %i bytes", async (mtu, expected) => {
    await using driver = world.driver();
    await driver.do("isolate", { mtu });
    const program = `console.log(require("node:fs").readFileSync("/sys/class/net/eth0/mtu", "utf8").trim())`;
    await driver.do("workload", { name: "a", program });
    expect(Number(await driver.do("output", "a"))).toBe(expected);
    await driver.do("end", "a");
  });

  it("holds a workload to its bandwidth", async () => {
    await using driver = world.driver();
    await driver.do("isolate", { bandwidthMbit: 8 });
    // 4 MB at 1 MB/s, of which 1.3 MB may come at once; a slow machine only takes longer.
    const program = `const begin = performance.now();
require("node:net").connect(${PORT}, "${PLACES.internet}").on("data", () => {}).on("close", () => console.log(performance.now() - begin));`;
    await driver.do("workload", { name: "a", program });
    expect(Number(await driver.do("output", "a"))).toBeGreaterThan(2500);
    await driver.do("end", "a");
  });

  describe("in the daemon", () => {
    const engine = () => new Docker({ socketPath: world.engine.socket });
    const networksLeft = async () => await engine().listNetworks({ filters: { label: ["org.gpunode.node"] } });

    it("a job runs on a network of its own, which goes with it", async () => {
      const image = await pushImage("isolation/job:1", await smallImage());
      await world.relay(Number(registryAddress().split(":")[1]));
      const relay = (port: number) => world.relay(port);
      const network = 'isolate_lan = true, allow = ["45.9.0.0/24:8080/tcp"]';
      await using site = await Site.open({ ...world.onMachine, socket: world.engine.socket, network, relay });
      const tries = [PLACES.internet, PLACES.lan, PLACES.rack, machine.lan]
        .map((host) => `nc -w 3 ${host} ${PORT} </dev/null >/dev/null 2>&1 && echo ${host}`)
        .join("; ");
      await site.client.submit({ id: "job", image, command: ["sh", "-c", `${tries}; sleep 2; exit 0`] });
      const { last } = course(await site.reaches("job", "running"));
      const { HostConfig } = await engine().getContainer(String(last.containerId)).inspect();
      const [own] = (await networksLeft()).filter(({ Name }) => /^gpunode-[a-z2-7]{6}-job-1$/.test(Name));
      expect(HostConfig.NetworkMode).toBe(own?.Id);
      expect(own?.Options?.["com.docker.network.bridge.name"]).toMatch(/^gpn-[0-9a-f]{11}$/);
      expect(course(await site.ends("job")).last).toMatchObject({ state: "succeeded" });
      const { stdout } = site.rig.gpunode("logs", "job");
      expect(stdout.trim().split("\n")).toEqual([PLACES.internet, PLACES.rack]);
      expect(site.rig.status().problems).toEqual([]);
      await until(async () => (await networksLeft()).length === 0);
      expect(await site.rig.end("SIGTERM")).toBe(0);
      expect(await world.table()).toBeUndefined();
    });

    it("a node that cannot isolate says so and takes no job", async () => {
      const { under, env } = world.onMachine;
      const weak = [...under, "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
      const network = "isolate_lan = true";
      const relay = (port: number) => world.relay(port);
      await using site = await Site.open({ under: weak, env, socket: world.engine.socket, network, relay });
      const { problems } = await site.rig.until(({ problems: told }) => told.length > 0);
      expect(problems).toMatchObject([{ code: "network_isolation" }]);
      await site.client.submit({ id: "job", image: "example.com/never:1" });
      const refused = await patiently(async () => {
        const { message } = await site.client.workload("job");
        return message?.includes("refused it") ? message : undefined;
      });
      expect(refused).toContain("CAP_NET_ADMIN");
      expect(refused).toContain("network.isolate_lan = false");
    });
  });
});
