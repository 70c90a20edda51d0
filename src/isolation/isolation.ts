import { setTimeout as sleep } from "node:timers/promises";
import { GpunodeError } from "../protocol/errors.ts";
import type { WorkloadNetworks } from "../workload/needs.ts";
import { bridgeOf, liveBridges } from "./bridge.ts";
import type { Log, Networks, ProbeEngine } from "./needs.ts";
import type { Firewall } from "./nft.ts";
import { type Exception, renderRules } from "./rules.ts";
import { readSurroundings, type Surroundings } from "./surroundings.ts";
import { tryIsolation, type Verdict } from "./trial.ts";

/**
 * Keeps the workloads of this node off the owner's network: rules in the packet filter, a network of its own for each workload, and a trial
 * that shows that the two do what they should.
 *
 * A loop holds the rules: it looks after them when nftables tells of a change, and every half minute anyway; what differs from what was set
 * (somebody flushed it, an address was added) is set again. The trial runs once at the start, and again after the rules were lost or
 * this machine's addresses changed. Its verdict is kept, so that a workload only waits for it where it is not there yet.
 */
export interface Isolation extends WorkloadNetworks, AsyncDisposable {
  /** Look after the rules, and for networks that nobody needs: once the workloads are known, and when the engine is back. */
  refresh(): void;
}

export interface IsolationDoors {
  nodeId: string;
  networks: Networks;
  probe: ProbeEngine;
  firewall: Firewall;
  exceptions: readonly Exception[];
  bandwidthMbit?: number;
  /** Bytes of the largest packet that gets out of this machine; undefined where nobody knows. */
  uplinkMtu?(): number | undefined;
  runtime?: string;
  /** Names of the containers whose workloads have not ended: their networks stay. */
  live(): readonly string[];
  /** `problem()` is another. */
  changed(): void;
  log: Log;
  /** How often all is looked at without a reason; default half a minute. */
  lookEveryMs?: number;
}

const LOOK_EVERY_MS = 30_000;
/** Changes come in bursts: a flush tells of each rule by itself. */
const SETTLE_MS = 50;
/** A trial that failed is repeated, later each time: the owner may have put it right meanwhile. */
const RETRY_FIRST_MS = 30_000;
const RETRY_MOST_MS = 10 * 60_000;

/** Bytes of a packet on Ethernet, the engine's default. */
const ETHERNET_MTU = 1500;
/** Every link carries as much (RFC 791, RFC 8200). */
const [LEAST_MTU, LEAST_MTU_IPV6] = [576, 1280];

const RULES_LOST =
  'somebody changed or flushed gpunode\'s rules in the packet filter; they are set again. A firewall that is started anew does that once: where it happens again and again, let it leave the table "gpunode" alone';
const REMEDY = "or set network.isolate_lan = false: workloads then reach your network";

/** Sets the rules before it resolves, and goes on by itself; never rejects. */
export async function startIsolation(doors: IsolationDoors): Promise<Isolation> {
  const { firewall, networks, log } = doors;
  const stop = new AbortController();
  let wake = new AbortController();
  /** What was set, as rendered and as the kernel then showed it. */
  let set: { script: string; listed: string | undefined } | undefined;
  let surroundings: Surroundings | undefined;
  let problem: string | undefined;
  let trial: Promise<Verdict> | undefined;
  let retryMs = RETRY_FIRST_MS;
  let retryAt = 0;
  let sweepNeeded = false;
  /** Networks of workloads by their container's name, each made, or made sure of, once. */
  const known = new Map<string, Promise<string>>();
  /** What an earlier agent has left, until it is made sure of. */
  const inherited = new Map<string, string>();

  function forget(name: string): void {
    known.delete(name);
    inherited.delete(name);
  }

  function tell(next: string | undefined): void {
    if (next === problem) return;
    problem = next;
    if (next === undefined) log.info({}, "workloads are kept off the owner's network, as a trial has shown");
    doors.changed();
  }

  /** Sets the rules where they are not as they should be. Throws `FirewallUnusable`. */
  async function holdRules(): Promise<void> {
    const now = await readSurroundings();
    const { exceptions, bandwidthMbit } = doors;
    const script = renderRules({ ...now, exceptions, ...(bandwidthMbit !== undefined && { bandwidthMbit }) });
    const moved =
      surroundings !== undefined && JSON.stringify(now.addresses) !== JSON.stringify(surroundings.addresses);
    surroundings = now;
    const listed = await firewall.table();
    const lost = set !== undefined && listed !== set.listed;
    if (set?.script !== script || lost) {
      await firewall.run(script);
      set = { script, listed: await firewall.table() };
      if (lost) log.warn({}, RULES_LOST);
    }
    if (lost || moved) trial = undefined;
  }

  /** Rules, trial, strays: whatever is not as it should be. Never throws. */
  async function look(): Promise<void> {
    try {
      await holdRules();
    } catch (error) {
      trial = undefined;
      set = undefined;
      if (!stop.signal.aborted) tell(`network.isolate_lan is true, and ${messageOf(error)}, ${REMEDY}`);
      return;
    }
    if (trial === undefined || (problem !== undefined && performance.now() >= retryAt)) void attempt().catch(() => {});
    if (sweepNeeded) await sweep();
  }

  /** A new trial; its promise stands for the verdict from now on. Rejects where the engine is away, and is then forgotten. */
  function attempt(): Promise<Verdict> {
    const running = runTrial().catch((error: unknown) => {
      if (trial === running) trial = undefined;
      throw error;
    });
    trial = running;
    return running;
  }

  let lastTrial: Promise<unknown> = Promise.resolve();
  function runTrial(): Promise<Verdict> {
    // One at a time: they use the same names.
    const next = lastTrial.then(
      async () => await conduct(),
      async () => await conduct(),
    );
    lastTrial = next;
    return next;
  }

  async function conduct(): Promise<Verdict> {
    stop.signal.throwIfAborted();
    const { probe, exceptions, runtime } = doors;
    let verdict: Verdict;
    try {
      verdict = await tryIsolation(
        {
          engine: probe,
          firewall,
          exceptions,
          surroundings: surroundings ?? (await readSurroundings()),
          ...(runtime !== undefined && { runtime }),
        },
        stop.signal,
      );
    } catch (error) {
      stop.signal.throwIfAborted();
      if (error instanceof GpunodeError && error.code === "engine_unavailable") throw error;
      verdict = { holds: false, because: `it could not be tried: ${messageOf(error)}` };
    }
    retryMs = verdict.holds ? RETRY_FIRST_MS : Math.min(retryMs * 2, RETRY_MOST_MS);
    retryAt = performance.now() + retryMs;
    tell(
      verdict.holds
        ? undefined
        : `network.isolate_lan is true, but it does not hold: ${verdict.because}. Put that right, ${REMEDY}`,
    );
    return verdict;
  }

  /** Networks whose workload is gone: left by a crash, or by an engine that was away. */
  async function sweep(): Promise<void> {
    try {
      const live = new Set(doors.live());
      let left = false;
      for (const { id, name } of await networks.list()) {
        if (live.has(name)) continue;
        if (await networks.remove(id)) forget(name);
        else left = true;
      }
      sweepNeeded = left;
    } catch (error) {
      log.debug({ err: error }, "could not look for networks that nobody needs");
    }
  }

  async function loop(): Promise<void> {
    while (!stop.signal.aborted) {
      const signal = AbortSignal.any([stop.signal, wake.signal]);
      await sleep(doors.lookEveryMs ?? LOOK_EVERY_MS, undefined, { signal }).catch(() => undefined);
      if (wake.signal.aborted) await sleep(SETTLE_MS, undefined, { signal: stop.signal }).catch(() => undefined);
      wake = new AbortController();
      if (!stop.signal.aborted) await look();
    }
  }

  async function watch(): Promise<void> {
    while (!stop.signal.aborted) {
      await firewall.watch(() => wake.abort(), stop.signal);
      await sleep(LOOK_EVERY_MS, undefined, { signal: stop.signal }).catch(() => undefined);
    }
  }

  try {
    for (const { id, name } of await networks.list()) inherited.set(name, id);
  } catch (error) {
    log.debug({ err: error }, "could not list the networks");
  }
  await look();
  const running = [loop(), watch()];

  return {
    problem: () => problem,
    refresh() {
      sweepNeeded = true;
      wake.abort();
    },
    async open({ name, labels }, signal) {
      const verdict = problem === undefined ? await orAborted(trial ?? attempt(), signal) : undefined;
      if (verdict?.holds !== true) {
        throw new GpunodeError("policy_denied", problem ?? "network.isolate_lan is true and does not hold");
      }
      const ipv6 = surroundings?.hasIpv6 ?? false;
      const bridge = bridgeOf(doors.nodeId, name);
      // Larger packets would be dropped on the way out, and downloads hang: a VPN, a cloud. The engine's own are never made larger.
      const mtu = doors.uplinkMtu?.() ?? ETHERNET_MTU;
      const smaller = mtu < ETHERNET_MTU ? { mtu: Math.max(mtu, ipv6 ? LEAST_MTU_IPV6 : LEAST_MTU) } : {};
      const made = known.get(name) ?? networks.create({ name, bridge, labels, ipv6, ...smaller });
      known.set(name, made);
      made.catch(() => known.delete(name));
      return await made;
    },
    async close(name) {
      const made = known.get(name) ?? inherited.get(name);
      if (made === undefined) return;
      try {
        if (await networks.remove(await made)) forget(name);
        else sweepNeeded = true;
      } catch (error) {
        sweepNeeded = true;
        log.debug({ err: error, network: name }, "a workload's network could not be removed; trying again later");
      }
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await Promise.allSettled([...running, lastTrial]);
      // Workloads live on without an agent, and then the rules do, too.
      if (liveBridges().length > 0) return;
      await firewall.remove().catch((error: unknown) => log.debug({ err: error }, "the rules could not be removed"));
    },
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Rejects with the signal's reason as soon as it is aborted. */
async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
