import { NOW_MS } from "../healthy.ts";
import { type Case, DAY_MS, snapshot } from "./case.ts";

export const COORDINATOR_CASES: readonly Case[] = [
  {
    id: "coordinator-name",
    when: "nobody knows it",
    facts: (good) => ({ coordinator: { url: good.coordinator.url, name: { problem: "the host name is not known" } } }),
    verdict: "failure",
    found: /coordinator\.example: the host name is not known/,
    fix: /^getent hosts coordinator\.example$/,
  },
  {
    id: "coordinator-name",
    when: "a proxy looks it up",
    facts: (good) => ({ coordinator: { ...good.coordinator, name: undefined as never, proxy: "proxy:3128" } }),
    verdict: "skipped",
    found: /proxy:3128/,
  },
  {
    id: "coordinator-connection",
    when: "nobody listens",
    facts: (good) => ({
      coordinator: { ...good.coordinator, connection: { problem: "nobody listens there (connection refused)" } },
    }),
    verdict: "failure",
    found: /connection refused/,
    fix: /coordinator\.proxy/,
  },
  {
    id: "coordinator-certificate",
    when: "it cannot be checked",
    facts: (good) => ({
      coordinator: { ...good.coordinator, certificate: { chain: [], problem: "its certificate has expired" } },
    }),
    verdict: "failure",
    found: /has expired/,
    fix: /coordinator\.ca_file/,
  },
  {
    id: "coordinator-certificate",
    when: "it ends soon",
    facts: (good) => ({
      coordinator: {
        ...good.coordinator,
        certificate: { chain: [{ subject: "coordinator.example", validUntilMs: NOW_MS + 5 * DAY_MS }] },
      },
    }),
    verdict: "warning",
    found: /that of coordinator\.example ends in 5 days/,
  },
  {
    id: "coordinator-certificate",
    when: "nothing is encrypted",
    facts: (good) => ({ coordinator: { ...good.coordinator, url: "ws://10.0.0.7:8080" } }),
    verdict: "note",
    found: /not encrypted/,
  },
  {
    id: "coordinator-protocol",
    when: "something else answers",
    facts: (good) => ({
      coordinator: { ...good.coordinator, protocol: { problem: "it answered HTTP 404 instead of a WebSocket" } },
    }),
    verdict: "failure",
    found: /HTTP 404/,
    fix: /coordinator\.url/,
  },
  {
    id: "coordinator-session",
    when: "the coordinator refuses",
    facts: (good) => ({
      daemon: snapshot(good, ({ connection }) => ({
        connection: { ...connection, state: "waiting", lastError: "the join token is not known" },
      })),
    }),
    verdict: "failure",
    found: /join token is not known/,
  },
  {
    id: "coordinator-session",
    when: "the daemon knows of none",
    facts: (good) => ({
      daemon: snapshot(good, ({ connection }) => ({ connection: { ...connection, state: "off" } })),
    }),
    verdict: "warning",
    found: /changed since the start/,
    fix: /^systemctl restart gpunode$/,
  },
  {
    id: "clock",
    when: "nothing sets it",
    facts: (good) => ({ clock: { ...good.clock, isSynchronized: false, isServiceOn: false } }),
    verdict: "warning",
    found: /nothing synchronizes the clock/,
    fix: /^timedatectl set-ntp true$/,
    auto: "safe",
  },
  {
    id: "clock",
    when: "there is nothing to set it with",
    facts: (good) => ({ clock: { nowMs: NOW_MS, isSynchronized: false, canSwitchOn: false }, system: good.system }),
    verdict: "warning",
    found: /nothing synchronizes/,
    fix: /^apt-get install systemd-timesyncd$/,
  },
  {
    id: "clock",
    when: "it is minutes behind the coordinator's",
    facts: (good) => ({
      coordinator: { ...good.coordinator, clockAheadMs: 600_000 },
      clock: { ...good.clock, isSynchronized: false },
    }),
    verdict: "failure",
    found: /this clock is 10 min behind the coordinator's/,
  },
  {
    id: "clock",
    when: "it is seconds ahead",
    facts: (good) => ({ coordinator: { ...good.coordinator, clockAheadMs: -20_000 } }),
    verdict: "warning",
    found: /20 s ahead of the coordinator's, and synchronized/,
  },
  {
    id: "clock",
    when: "no server was reached yet",
    facts: (good) => ({ clock: { ...good.clock, isSynchronized: false, isServiceOn: true } }),
    verdict: "note",
    found: /not reached a server/,
  },
];
