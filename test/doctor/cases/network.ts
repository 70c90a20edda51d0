import { away, type Case, config, problem, snapshot } from "./case.ts";

export const NETWORK_CASES: readonly Case[] = [
  {
    id: "isolation",
    when: "it does not hold, says the daemon",
    facts: (good) =>
      problem(
        good,
        "network_isolation",
        "network.isolate_lan is true, but it does not hold: a container reaches the router",
      ),
    verdict: "failure",
    found: /a container reaches the router/,
  },
  {
    id: "isolation",
    when: "nft is missing",
    facts: () => ({ daemon: away, firewall: {} }),
    verdict: "failure",
    found: /nft is not installed/,
    fix: /^apt-get install nftables$/,
  },
  {
    id: "isolation",
    when: "the doctor's own trial fails",
    facts: () => ({ daemon: away, trial: { problem: "a container reaches this machine at 192.168.1.5" } }),
    verdict: "failure",
    found: /reaches this machine/,
  },
  {
    id: "isolation",
    when: "the doctor's own trial succeeds",
    facts: () => ({ daemon: away }),
    verdict: "ok",
    found: /a trial/,
  },
  {
    id: "isolation",
    when: "the owner does not want it",
    facts: (good) => ({ config: config(good, { network: { ...good.config.config.network, isolateLan: false } }) }),
    verdict: "note",
    found: /workloads reach your network/,
  },
  {
    id: "mtu",
    when: "the uplink is a VPN",
    facts: (good) => ({ network: { ...good.network, uplink: { device: "wg0", mtu: 1420 } } }),
    verdict: "warning",
    found: /docker0 has 1500 bytes, wg0 carries only 1420/,
    fix: /"mtu": 1420/,
  },
  {
    id: "host-ports",
    when: "the system gives them away, too",
    facts: (good) => ({
      config: config(good, { policy: { ...good.config.config.policy, hostPorts: { from: 40000, to: 40999 } } }),
    }),
    verdict: "warning",
    found: /40000-40999 overlaps 32768-60999/,
    fix: /^printf 'net\.ipv4\.ip_local_reserved_ports = 40000-40999\\n' \| tee \/etc\/sysctl\.d\/60-gpunode\.conf$/,
    auto: "named",
  },
  {
    id: "host-ports",
    when: "they overlap, and are reserved",
    facts: (good) => ({
      config: config(good, { policy: { ...good.config.config.policy, hostPorts: { from: 40000, to: 40999 } } }),
      network: { ...good.network, reservedPorts: [{ from: 40000, to: 40999 }] },
    }),
    verdict: "ok",
    found: /free/,
  },
  {
    id: "host-ports",
    when: "some are taken",
    facts: (good) => ({
      network: {
        ...good.network,
        listening: new Map([
          [30080, 0],
          [30443, 0],
        ]),
      },
    }),
    verdict: "note",
    found: /somebody else has 30080 and 30443/,
  },
  {
    id: "host-ports",
    when: "all are taken",
    facts: (good) => ({
      config: config(good, { policy: { ...good.config.config.policy, hostPorts: { from: 30080, to: 30081 } } }),
      network: {
        ...good.network,
        listening: new Map([
          [30080, 0],
          [30081, 0],
        ]),
      },
    }),
    verdict: "failure",
    found: /every port/,
  },
  {
    id: "host-ports",
    when: "a workload of ours has one",
    facts: (good) => ({
      network: { ...good.network, listening: new Map([[30080, 0]]) },
      daemon: snapshot(good, () => ({
        workloads: [
          {
            id: "a",
            generation: 1,
            state: "running",
            image: "x",
            gpus: [],
            ports: [{ container: 80, host: 30080 }],
            restarts: 0,
            acceptedAt: "",
          },
        ],
      })),
    }),
    verdict: "ok",
    found: /free/,
  },
  {
    id: "metrics-port",
    when: "somebody has it before the daemon",
    facts: () => ({ daemon: away }),
    verdict: "warning",
    found: /somebody else listens on port 9835/,
    fix: /^ss -ltnp 'sport = :9835'$/,
  },
  {
    id: "metrics-port",
    when: "the daemon could not have it",
    facts: (good) => problem(good, "page_unavailable", "metrics.listen 127.0.0.1:9835 is taken"),
    verdict: "warning",
    found: /is taken/,
  },
  {
    id: "metrics-port",
    when: "they are off",
    facts: (good) => ({ config: config(good, { metrics: { listen: "off" } }) }),
    verdict: "skipped",
    found: /off/,
  },
];
