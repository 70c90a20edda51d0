import { advice, type Check, check, command, failure, had, isMissing, note, ok, skipped, warning } from "../check.ts";
import type { ConfigFacts, DaemonFacts, NetworkFacts } from "../facts.ts";
import { installs } from "../remedies.ts";
import { list } from "../words.ts";

/** Fewer of them are no matter of chance: 1500 less what Ethernet's own tags and PPPoE take. */
const MTU_SLACK = 8;

/** This machine's network, as workloads meet it. */
export const NETWORK_CHECKS: readonly Check[] = [
  check({
    id: "isolation",
    title: "Workloads are kept off your network",
    looks:
      "nftables, and a trial from inside two containers: the daemon's where it runs, else one of the doctor's own ([security.md](security.md))",
    why: "a stranger's program could reach your other machines; the node refuses all work instead",
    mends: "install nftables, or what the trial's sentence names",
    needs: ["config", "firewall", "system"],
    uses: ["daemon", "trial"],
    judge({ config: { config }, firewall, system, daemon, trial }) {
      if (!config.network.isolateLan) return note("network.isolate_lan is false: workloads reach your network");
      const running = had(daemon);
      if (running?.state === "running") {
        const told = running.snapshot.problems.find(({ code }) => code === "network_isolation");
        return told === undefined ? ok("the daemon holds its rules, and has tried them") : failure(told.message);
      }
      if (firewall.program === undefined) return failure("nft is not installed", [installs(system, "nftables")]);
      if (isMissing(trial)) return skipped(trial.missing);
      return trial.problem === undefined
        ? ok("a trial from inside two containers has shown it")
        : failure(trial.problem);
    },
  }),
  check({
    id: "mtu",
    title: "Packets of containers fit through the uplink",
    looks: "MTU of the engine's bridges, and of the device that leads to the internet",
    why: "on a VPN or a cloud's network with smaller packets, downloads inside containers hang after the first kilobytes",
    mends: "`default-network-opts` and `mtu` in daemon.json",
    needs: ["network"],
    judge({ network: { uplink, bridges } }) {
      if (uplink === undefined) return skipped("no default route leads anywhere");
      if (bridges.size === 0) return skipped("the engine has made no bridge yet");
      const large = [...bridges].filter(([, mtu]) => mtu > uplink.mtu + MTU_SLACK);
      if (large.length === 0) return ok(`${uplink.device} carries ${uplink.mtu} bytes`);
      const own = large.some(([name]) => !name.startsWith("docker") && !name.startsWith("gpn-"));
      const json = `"mtu": ${uplink.mtu}, "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "${uplink.mtu}"}}`;
      return warning(
        `${list(large.slice(0, 4).map(([name, mtu]) => `${name} has ${mtu} bytes`))}, ${uplink.device} carries only ${uplink.mtu}`,
        [
          advice(`put ${json} into /etc/docker/daemon.json (the second needs Docker 24)`),
          command("systemctl", "restart", "docker"),
          ...(own ? [advice("networks that are there already keep their size until they are made anew")] : []),
        ],
      );
    },
  }),
  check({
    id: "host-ports",
    title: "The ports for workloads are free",
    looks:
      "`policy.host_ports` against ports that somebody listens on, and against those the system gives to outgoing connections",
    why: "a workload whose port is taken at that moment does not start",
    mends: "another range in `policy.host_ports`",
    needs: ["network", "config"],
    uses: ["daemon"],
    judge({ network, config: { config }, daemon }) {
      const { from, to } = config.policy.hostPorts;
      const range = `${from}-${to}`;
      const taken = takenPorts(network, config, had(daemon));
      if (taken.length > 0 && taken.length === to - from + 1) {
        return failure(`every port of policy.host_ports ${range} is taken`, [
          advice("set policy.host_ports to another range"),
        ]);
      }
      const { localPorts, reservedPorts } = network;
      const overlap = localPorts === undefined ? undefined : overlapOf({ from, to }, localPorts);
      if (overlap !== undefined && !reservedPorts.some((one) => one.from <= overlap.from && overlap.to <= one.to)) {
        return warning(
          `policy.host_ports ${range} overlaps ${localPorts?.from}-${localPorts?.to}, which the system gives to outgoing connections`,
          [
            {
              kind: "write",
              path: "/etc/sysctl.d/60-gpunode.conf",
              text: `net.ipv4.ip_local_reserved_ports = ${reservation(reservedPorts, { from, to })}\n`,
              mode: 0o644,
            },
            command("sysctl", "--system"),
            advice("or set policy.host_ports to a range below"),
          ],
          "named",
        );
      }
      if (taken.length === 0) return ok(`${range} are free`);
      const some = taken.slice(0, 6).map(String);
      return note(
        `of ${range} somebody else has ${list(some)}${taken.length > some.length ? ` and ${taken.length - some.length} more` : ""}; they are left out`,
      );
    },
  }),
  check({
    id: "metrics-port",
    title: "The page and /metrics have their port",
    looks: "`metrics.listen`, and who listens there",
    why: "the daemon goes on without them where the port is taken",
    mends: "another port in `metrics.listen`, or `off`",
    needs: ["network", "config"],
    uses: ["daemon"],
    judge({ network, config: { config }, daemon }) {
      const { listen } = config.metrics;
      if (listen === "off") return skipped('metrics.listen is "off"');
      const running = had(daemon);
      const where = `${listen.host.includes(":") ? `[${listen.host}]` : listen.host}:${listen.port}`;
      if (running?.state === "running") {
        const told = running.snapshot.problems.find(({ code }) => code === "page_unavailable");
        if (told !== undefined) return warning(told.message, [advice("set metrics.listen to a free port, or to off")]);
        return ok(`the daemon answers at ${running.snapshot.page ?? where}`);
      }
      if (listen.port === 0 || !network.listening.has(listen.port)) return ok(`${where} is free`);
      return warning(`somebody else listens on port ${listen.port}`, [
        command("ss", "-ltnp", `sport = :${listen.port}`),
        advice("set metrics.listen to a free port, or to off"),
      ]);
    },
  }),
];

/** Ports of the range that somebody listens on, and no workload of ours. */
function takenPorts(
  { listening }: NetworkFacts,
  config: ConfigFacts["config"],
  daemon: DaemonFacts | undefined,
): number[] {
  const { from, to } = config.policy.hostPorts;
  const own =
    daemon?.state === "running" ? daemon.snapshot.workloads.flatMap(({ ports }) => ports.map(({ host }) => host)) : [];
  return [...listening.keys()]
    .filter((port) => port >= from && port <= to && !own.includes(port))
    .sort((a, b) => a - b);
}

interface Range {
  from: number;
  to: number;
}

function overlapOf(a: Range, b: Range): Range | undefined {
  const both = { from: Math.max(a.from, b.from), to: Math.min(a.to, b.to) };
  return both.from <= both.to ? both : undefined;
}

/** What is reserved already stays so. */
function reservation(before: readonly Range[], more: Range): string {
  return [...before, more].map(({ from, to }) => (from === to ? String(from) : `${from}-${to}`)).join(",");
}
