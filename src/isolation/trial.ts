import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { LABEL_NODE as LabelNode } from "../workload/needs.ts";
import { covers, isSingle, parseCidr } from "./addresses.ts";
import { bridgeOf, liveBridges } from "./bridge.ts";
import { ask, listenOn } from "./conversation.ts";
import type { NetworkState, ProbeEngine } from "./needs.ts";
import type { Firewall } from "./nft.ts";
import { type ProbeImage, probeImage } from "./probe-image.ts";
import { type Outcome, PROBE_PORT, PROBE_PROGRAM, type Target } from "./probe-program.ts";
import type { Exception } from "./rules.ts";
import type { Surroundings } from "./surroundings.ts";

export interface TrialDoors {
  engine: ProbeEngine;
  firewall: Firewall;
  exceptions: readonly Exception[];
  surroundings: Surroundings;
  /** The runtime workloads get, where the policy names one. */
  runtime?: string;
}

/** On all that the probe makes; the type holds it to the name the workload room uses. */
const LABEL_NODE: typeof LabelNode = "org.gpunode.node";

/** Whether isolation holds, and if not, what was seen. */
export type Verdict = { readonly holds: true } | { readonly holds: false; readonly because: string };

/** One way out of a container: it must be closed or, for a control, open. */
interface Way {
  readonly to: Target;
  /** For the message: "this machine at 192.168.1.5". */
  readonly words: string;
}

/** A refused connection comes back at once; a dropped one is given up on after this. */
const ATTEMPT_MS = 2_000;
/** Node starts in a tenth of a second; a machine that pulls images at the same time is slower. */
const START_MS = 20_000;
const START_POLL_MS = 50;
/** Cloud machines find their own credentials here: the same address at all large providers, and Amazon's for IPv6. */
const METADATA = ["169.254.169.254", "fd00:ec2::254"];

/**
 * Tries from inside: two probes on networks made exactly as a workload's; the first tries to reach the second, this machine on each of its
 * addresses, the owner's router and the cloud's metadata. All of that must fail. That the probe itself works is told by controls: this
 * machine reaches the probe over the very bridge, the probe reaches itself, and the packet filter counts refused packets
 * from that bridge.
 *
 * Leaves nothing behind but the probe's image. Throws what the engine throws.
 */
export async function tryIsolation(doors: TrialDoors, signal: AbortSignal): Promise<Verdict> {
  const { engine } = doors;
  await removeProbes(engine);
  try {
    const image = await probeImage(engine, signal);
    // One after the other, so that none is still being made where the other fails and all is removed.
    const first = await startProbe("a", image, doors);
    const second = await startProbe("b", image, doors);
    return await judge(first, second, doors, signal);
  } finally {
    await removeProbes(engine);
  }
}

interface Probe {
  bridge: string;
  network: NetworkState;
  addresses: string[];
}

async function startProbe(name: string, image: ProbeImage, doors: TrialDoors): Promise<Probe> {
  const { engine, surroundings, runtime } = doors;
  const labels = { [LABEL_NODE]: engine.nodeId };
  // Another name each time: a bridge that a failed attempt of the engine has left would be taken over, and never removed.
  const full = `gpunode-probe-${name}-${randomBytes(4).toString("hex")}`;
  const bridge = bridgeOf(engine.nodeId, full);
  const network = await engine.networks.create({ name: full, bridge, labels, ipv6: surroundings.hasIpv6 });
  const id = await engine.create({
    name: full,
    labels,
    image: image.id,
    entrypoint: [image.node, "-e", PROBE_PROGRAM],
    env: { LD_LIBRARY_PATH: image.libraryPath },
    user: "65534:65534",
    gpus: [],
    ...{ cpus: 1, memoryMiB: 256, shmMiB: 16, pids: 256, diskMiB: 256 },
    ports: [],
    hostIp: "127.0.0.1",
    volumes: [],
    network,
    ...(runtime !== undefined && { runtime }),
    stopSignal: "SIGTERM",
  });
  await engine.start(id);
  const state = await engine.networks.inspect(network);
  if (state === undefined) throw new Error(`the network ${full} is gone`);
  return { bridge, network: state, addresses: state.addresses[id] ?? [] };
}

async function judge(first: Probe, second: Probe, doors: TrialDoors, signal: AbortSignal): Promise<Verdict> {
  const { firewall, surroundings, exceptions } = doors;
  if (!liveBridges().includes(first.bridge)) {
    return fails(
      `the container engine makes its networks elsewhere (no device ${first.bridge} on this machine): a rootless engine, or one in a virtual machine, cannot be isolated from here`,
    );
  }
  const [own] = first.addresses;
  if (own === undefined || !(await answers(own, signal))) {
    return fails(`the probe's container does not answer at ${own ?? "any address"}, so nothing is known`);
  }
  await using listeners = new AsyncDisposableStack();
  const host: Way[] = [];
  for (const address of [...first.network.gateways, ...surroundings.addresses]) {
    const listener = await listenOn(address);
    if (listener === undefined) continue;
    listeners.use(listener);
    host.push({ to: { host: address, port: listener.port }, words: `this machine at ${address}` });
  }
  const [gateway] = host;
  if (gateway === undefined) {
    return fails(`this machine cannot listen on its own bridge (${first.network.gateways.join(", ")})`);
  }
  const neighbours: Way[] = second.addresses.map((address) => ({
    to: { host: address, port: PROBE_PORT },
    words: `another workload at ${address}`,
  }));
  const outside: Way[] = [
    ...METADATA.map((address) => ({ to: { host: address, port: 80 }, words: `the cloud's metadata at ${address}` })),
    ...(surroundings.router === undefined
      ? []
      : [{ to: { host: surroundings.router, port: 80 }, words: `the router at ${surroundings.router}` }]),
  ];
  const closed = [
    ...neighbours,
    // As the rules have it: a range with this machine in it does not open this machine.
    ...host.filter(
      ({ to }) =>
        !isExcepted(
          to,
          exceptions.filter((exception) => isSingle(exception.to)),
        ),
    ),
    ...outside.filter(({ to }) => !isExcepted(to, exceptions)),
  ];
  const control: Way = { to: { host: own, port: PROBE_PORT }, words: "itself" };
  const ways = [control, ...closed];
  const before = await firewall.refused(first.bridge);
  const outcomes = await ask(own, { targets: ways.map(({ to }) => to), timeoutMs: ATTEMPT_MS }, signal);
  const after = await firewall.refused(first.bridge);
  return verdictOf(ways, outcomes, after - before);
}

/** The first way is the control. */
function verdictOf(ways: readonly Way[], outcomes: readonly Outcome[], refused: number): Verdict {
  const open = ways.slice(1).filter((_, index) => outcomes[index + 1] === "reached");
  if (open.length > 0) return fails(`a container reaches ${open.map(({ words }) => words).join(", ")}`);
  if (outcomes[0] !== "reached") return fails(`the probe does not even reach itself (${outcomes[0] ?? "no answer"})`);
  if (refused < 1) return fails("what the probe sent did not come to the rules in this machine's packet filter");
  return { holds: true };
}

function fails(because: string): Verdict {
  return { holds: false, because };
}

function isExcepted({ host, port }: Target, exceptions: readonly Exception[]): boolean {
  const range = parseCidr(host);
  return exceptions.some(
    ({ to, port: only }) => range !== undefined && covers(to, range) && (only === undefined || only === port),
  );
}

async function answers(address: string, signal: AbortSignal): Promise<boolean> {
  const deadline = performance.now() + START_MS;
  while (performance.now() < deadline) {
    const said = await ask(address, { targets: [], timeoutMs: ATTEMPT_MS }, signal).catch(() => undefined);
    if (said !== undefined) return true;
    await sleep(START_POLL_MS, undefined, { signal });
  }
  return false;
}

/** Also what an agent that was killed has left. */
async function removeProbes(engine: ProbeEngine): Promise<void> {
  for (const { id } of await engine.list(engine.nodeId)) await engine.remove(id);
  for (const { id } of await engine.networks.list()) await engine.networks.remove(id);
}
