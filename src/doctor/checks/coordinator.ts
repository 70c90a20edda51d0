import {
  advice,
  type Check,
  check,
  command,
  failure,
  had,
  type Judgement,
  note,
  ok,
  type Step,
  shell,
  skipped,
  warning,
} from "../check.ts";
import type { ClockFacts, CoordinatorFacts, SystemFacts } from "../facts.ts";
import { familyOf, installs } from "../remedies.ts";
import { whereReloadIsSafe } from "../trap.ts";
import { list } from "../words.ts";

const DAY_MS = 86_400_000;
/** Let's Encrypt's certificates are renewed 30 days before their end; one this near it was forgotten. */
const EXPIRY_MS = 14 * DAY_MS;
/** A `Date` header and the way there are no more exact than a second or two. */
const SKEW_MS = 5_000;
/** Certificates and tokens are then too old or too new for one of the two. */
const SKEW_BAD_MS = 300_000;

/** The way to the coordinator, and the clock. */
export const COORDINATOR_CHECKS: readonly Check[] = [
  check({
    id: "coordinator-name",
    title: "The coordinator's name is known",
    looks: "the host of `coordinator.url`, looked up as the daemon does it",
    why: "without an address nothing is reached",
    mends: "mend the name in `coordinator.url`, or this machine's name servers",
    needs: ["coordinator"],
    judge({ coordinator: { name, url, proxy } }) {
      if (name === undefined) return skipped(`the proxy ${proxy ?? ""} looks it up`);
      if ("addresses" in name) return ok(list(name.addresses));
      return failure(`${hostOf(url)}: ${name.problem}`, [
        shell(`getent hosts ${hostOf(url)}`),
        advice("look at coordinator.url and /etc/resolv.conf"),
      ]);
    },
  }),
  check({
    id: "coordinator-connection",
    title: "The coordinator can be reached",
    looks: "a TCP connection to it, through `coordinator.proxy` where one is set",
    why: "no work comes, and nothing is reported",
    mends: "start the coordinator, open the port on the way (outgoing only), or set `coordinator.proxy`",
    needs: ["coordinator"],
    judge({ coordinator: { connection, proxy, url } }) {
      if (connection === undefined) return skipped("its name is not known");
      const way = proxy === undefined ? "" : ` through the proxy ${proxy}`;
      if ("tookMs" in connection) return ok(`within ${Math.max(1, Math.round(connection.tookMs))} ms${way}`);
      return failure(`${hostOf(url)}${way}: ${connection.problem}`, [
        advice(
          proxy === undefined
            ? "where only a proxy leads out, set coordinator.proxy"
            : "look at coordinator.proxy, and whether it lets CONNECT through to that port",
        ),
      ]);
    },
  }),
  check({
    id: "coordinator-certificate",
    title: "The coordinator's certificate is good",
    looks: "the chain of certificates, whom it is for, and when each one ends",
    why: "the daemon speaks to nobody whose certificate it cannot check",
    mends: "renew the certificate, or name its authority in `coordinator.ca_file`",
    needs: ["coordinator", "clock"],
    judge({ coordinator: { certificate, connection, url }, clock: { nowMs } }) {
      if (!url.startsWith("wss:")) {
        const isHere = /^(?:localhost|127\.[\d.]+|\[::1\])$/.test(hostOf(url));
        return isHere
          ? skipped("the coordinator is on this machine, and not encrypted")
          : note(`${url} is not encrypted`);
      }
      if (certificate === undefined)
        return skipped(connection === undefined || "problem" in connection ? "it is not reached" : "none was shown");
      if (certificate.problem !== undefined) {
        return failure(certificate.problem, [
          advice(
            "give the authority it was signed by as coordinator.ca_file, or have the coordinator's certificate renewed",
          ),
        ]);
      }
      const first = [...certificate.chain].sort((a, b) => a.validUntilMs - b.validUntilMs)[0];
      if (first === undefined) return skipped("none was shown");
      const days = Math.floor((first.validUntilMs - nowMs) / DAY_MS);
      const found = `${certificate.chain.length} in the chain; that of ${first.subject} ends in ${days} days`;
      return first.validUntilMs - nowMs < EXPIRY_MS
        ? warning(found, [advice("have it renewed, and the coordinator started again")])
        : ok(found);
    },
  }),
  check({
    id: "coordinator-protocol",
    title: "The coordinator speaks gpunode's protocol",
    looks: "the WebSocket's opening, with the name of the protocol; it ends there",
    why: "another service, or one of another version, has no use for this node",
    mends: "the right path in `coordinator.url`; a coordinator of this version",
    needs: ["coordinator"],
    judge({ coordinator: facts }) {
      const { protocol } = facts;
      if (protocol === undefined) return skipped(brokenOff(facts));
      return "works" in protocol
        ? ok("it does")
        : failure(protocol.problem, [advice("look at coordinator.url, its path included")]);
    },
  }),
  check({
    id: "coordinator-session",
    title: "The coordinator has taken this node in",
    looks: "the running daemon's session",
    why: "reached is not yet admitted: a key that is not known, a used join token, another node with this key",
    mends: "what the coordinator said; mostly a new join token",
    needs: ["coordinator", "daemon"],
    judge({ daemon, coordinator }) {
      if (daemon.state !== "running") return skipped("the daemon does not run");
      const { connection } = daemon.snapshot;
      if (connection.state === "connected") return ok(`connected since ${connection.since}`);
      if (connection.state === "off") {
        return warning(
          "the daemon knows no coordinator, and the configuration names one: it was changed since the start",
          [command("systemctl", "restart", "gpunode")],
        );
      }
      if (connection.lastError === undefined) return note("it is being connected to right now");
      // Said already, by the step that failed.
      if (coordinator.protocol === undefined) return skipped(brokenOff(coordinator));
      return failure(connection.lastError);
    },
  }),
  check({
    id: "clock",
    title: "The clock is right",
    looks: "whether the clock is synchronized (`timedatectl`), and the coordinator's clock by its `Date`",
    why: "a wrong clock makes good certificates bad, and usage records that nobody believes",
    mends: "`timedatectl set-ntp true`",
    needs: ["clock", "system"],
    uses: ["coordinator", "engine", "toolkit"],
    judge({ clock, system, coordinator, engine, toolkit }) {
      const aheadMs = had(coordinator)?.clockAheadMs;
      const off = aheadMs === undefined ? undefined : inWords(aheadMs);
      const steps = clockSteps(clock, system, whereReloadIsSafe("safe", { engine, toolkit }));
      if (aheadMs !== undefined && Math.abs(aheadMs) >= SKEW_MS) {
        const found = `this clock is ${off} the coordinator's${clock.isSynchronized === true ? ", and synchronized: the coordinator's is wrong" : ""}`;
        return (Math.abs(aheadMs) >= SKEW_BAD_MS ? failure : warning)(found, ...steps);
      }
      if (clock.isSynchronized === false) {
        if (clock.isServiceOn === true) return note("time synchronization is on, and has not reached a server yet");
        return warning("nothing synchronizes the clock", ...steps);
      }
      if (clock.isSynchronized === undefined && off === undefined)
        return skipped("neither timedatectl nor a coordinator tells");
      return ok(
        [
          ...(clock.isSynchronized === true ? ["synchronized"] : []),
          ...(off === undefined ? [] : [`within ${SKEW_MS / 1000} s of the coordinator's`]),
        ].join(", "),
      );
    },
  }),
];

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).hostname : url;
}

function brokenOff({ name, connection, certificate }: CoordinatorFacts): string {
  if (name !== undefined && "problem" in name) return "its name is not known";
  if (connection === undefined || "problem" in connection) return "it is not reached";
  return certificate?.problem === undefined ? "it did not come to that" : "its certificate is no good";
}

function inWords(aheadMs: number): string {
  const seconds = Math.abs(aheadMs) / 1000;
  const amount = seconds < 120 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
  return `${amount} ${aheadMs > 0 ? "behind" : "ahead of"}`;
}

function clockSteps(
  { isServiceOn, canSwitchOn }: ClockFacts,
  system: SystemFacts,
  auto: Judgement["auto"],
): [Step[], Judgement["auto"]?] {
  const on = command("timedatectl", "set-ntp", "true");
  if (canSwitchOn === true && isServiceOn !== true) return [[on], auto];
  if (canSwitchOn === true) return [[command("systemctl", "restart", "systemd-timesyncd")]];
  const family = familyOf(system);
  return [[installs(system, family === "debian" || family === "ubuntu" ? "systemd-timesyncd" : "chrony")]];
}
