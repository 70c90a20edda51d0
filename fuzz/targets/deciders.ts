import { generateKeyPairSync, sign } from "node:crypto";
import { choose } from "../../src/placement/choose.ts";
import { unitsOf } from "../../src/placement/unit.ts";
import { chooseVictims, type Holder } from "../../src/placement/victims.ts";
import type { Claim, ClaimSource } from "../../src/preemption/claim.ts";
import { effectOf, type KnownClaim } from "../../src/preemption/effect.ts";
import { Register } from "../../src/preemption/register.ts";
import { Hold } from "../../src/protocol/agent-frames.ts";
import { GpunodeError } from "../../src/protocol/errors.ts";
import { UsageEvent } from "../../src/protocol/event.ts";
import type { Gpu } from "../../src/protocol/gpu.ts";
import { foldUsage, signUsage, verifyUsage } from "../../src/protocol/usage.ts";
import type { GpuRequest } from "../../src/protocol/workload.ts";
import { allocate } from "../../src/workload/allocate.ts";
import { planEnd } from "../../src/workload/end-plan.ts";
import type { StopOrder } from "../../src/workload/record.ts";
import { harder } from "../../src/workload/stop-order.ts";
import type { Draw } from "../draw.ts";
import { valid } from "../from-schema.ts";
import { hostileNumber } from "../hostile.ts";
import { allowing, ensure, plainGroup, target } from "../target.ts";

/** A machine of up to eight GPUs, some split, some linked, some not to be given. */
function machine(draw: Draw): Gpu[] {
  const count = 1 + draw.below(8);
  const groups = Array.from({ length: count }, () => draw.below(3));
  return groups.map((group, index) => {
    const instances = draw.list(3, (n) => ({
      uuid: `MIG-${index}-${n}`,
      profile: draw.of(["1g.5gb", "3g.20gb"]),
      vramMiB: 5000,
      gpuInstanceId: n,
      computeInstanceId: 0,
    }));
    const isSplit = draw.once(4);
    return {
      index,
      uuid: `GPU-${index}`,
      vendor: "nvidia",
      name: draw.of(["A", "B"]),
      ...(draw.once(4) ? {} : { vramMiB: draw.of([8192, 24_576, 81_920]) }),
      ...(draw.once(3) && { computeCapability: draw.of(["7.5", "8.0", "9.0"]) }),
      tensorCores: { precisions: draw.of([["fp16"], ["fp16", "fp8"]]), sparsity: false },
      ...(isSplit && { mig: { enabled: true, instances } }),
      links: groups.flatMap((other, n) =>
        n === index || draw.once(3)
          ? []
          : [
              {
                gpu: `GPU-${n}`,
                ...(other === group
                  ? { kind: "nvlink" as const, count: 2 }
                  : { kind: "pcie" as const, path: draw.of(["pix", "sys"] as const) }),
              },
            ],
      ),
      health: { status: "healthy", reasons: [] },
      allocatable: !draw.once(8),
    };
  });
}

function wish(draw: Draw): GpuRequest {
  return {
    count: draw.below(6),
    ...(draw.once(3) && { minVramMiB: draw.of([1, 8192, 24_577]) }),
    ...(draw.once(4) && { precisions: [draw.of(["fp16", "fp8"] as const)] }),
    ...(draw.once(4) && { minComputeCapability: draw.of(["7.5", "8.0", "10.0"]) }),
    ...(draw.once(5) && { uuids: ["GPU-0", "GPU-1", "MIG-0-0"] }),
    ...(draw.once(4) && { migProfile: draw.of(["1g.5gb", "3g.20gb"]) }),
    ...(draw.once(4) && { nvlink: draw.once(2) }),
  };
}

function heldBy(draw: Draw, gpus: readonly Gpu[]): Record<string, string> {
  const all = gpus.flatMap(({ uuid, mig }) => [uuid, ...(mig?.instances ?? []).map((instance) => instance.uuid)]);
  return Object.fromEntries(draw.list(4, () => [draw.of(all), draw.of(["a", "b"])]));
}

/** What none may be given while another holds any of it: a board and all of its instances, or one instance and its board. */
function reachOf(uuid: string, gpus: readonly Gpu[]): string[] {
  const board = gpus.find((gpu) => gpu.uuid === uuid);
  if (board !== undefined) return [uuid, ...(board.mig?.instances ?? []).map((instance) => instance.uuid)];
  const around = gpus.find(({ mig }) => mig?.instances.some((instance) => instance.uuid === uuid));
  return around === undefined ? [uuid] : [uuid, around.uuid];
}

function allLinked(uuids: readonly string[], gpus: readonly Gpu[]): boolean {
  const chosen = gpus.filter(({ uuid }) => uuids.includes(uuid));
  return chosen.every(({ uuid, links }) =>
    chosen.every(
      (other) =>
        other.uuid === uuid ||
        links.some(({ gpu, kind }) => gpu === other.uuid && kind === "nvlink") ||
        other.links.some(({ gpu, kind }) => gpu === uuid && kind === "nvlink"),
    ),
  );
}

const SOURCES: readonly ClaimSource[] = [
  "owner",
  "schedule",
  "foreign_process",
  "host_shutdown",
  "cloud_notice",
  "coordinator",
  "host_pressure",
];

interface Claimed {
  claims: { source: ClaimSource; claims: Claim[] }[];
  order: number[];
}

function claimed(draw: Draw): Claimed {
  const claims = SOURCES.map((source) => ({
    source,
    claims: draw.list(2, () => ({
      ...(draw.once(2) && { gpus: draw.list(2, () => `GPU-${draw.below(3)}`) }),
      message: source,
      work: draw.of(["leave", "warn", "stop_in_time", "stop"] as const),
      // Apart from each other: of two that are as grave and as early, either may speak.
      ...(draw.once(2) && { deadlineAt: 1000 * (1 + draw.below(50)) + SOURCES.indexOf(source) }),
      ...(draw.once(3) && {
        untilAt: draw.any(
          () => draw.below(1e6),
          () => Math.abs(hostileNumber(draw)),
        ),
      }),
    })),
  }));
  return { claims, order: claims.map(() => draw.below(1000)) };
}

/** A register with nothing running, which has heard the sources in this order. */
function register(claims: Claimed["claims"]): Register {
  const heard = new Register({
    records: () => [],
    preempt: () => 0,
    withdraw: () => 0,
    boards: () => [],
    tell: () => undefined,
    changed: () => undefined,
    now: () => 1_700_000_000_000,
    steady: () => 0,
    log: { info: () => undefined, error: (_fields, message) => ensure(false, message) },
  });
  for (const { source, claims: set } of claims) heard.raise(source, set);
  return heard;
}

function harmless(holds: readonly Hold[]): string {
  for (const hold of holds) ensure(Hold.safeParse(hold).success, () => `no hold of the wire: ${JSON.stringify(hold)}`);
  return JSON.stringify(holds.map((hold) => JSON.stringify(hold)).sort());
}

function sameWhateverTheOrder({ claims, order }: Claimed): void {
  const shuffled = claims
    .map((claim, at) => ({ claim, at: order[at] ?? 0 }))
    .sort((a, b) => a.at - b.at)
    .map(({ claim }) => claim);
  // A set that was raised, taken back and raised again is the set.
  using first = register(claims);
  using second = register([...claims.map(({ source }) => ({ source, claims: [] })), ...shuffled]);
  ensure(harmless(first.holds()) === harmless(second.holds()), "the holds differ with the order");
  const [a, b] = [first.held(), second.held()];
  ensure((a.node === undefined) === (b.node === undefined), "the node is held in one order and lent in another");
  ensure(
    JSON.stringify([...a.gpus.keys()].sort()) === JSON.stringify([...b.gpus.keys()].sort()),
    "other GPUs are held in another order",
  );
  const known = (list: Claimed["claims"]): KnownClaim[] =>
    list.flatMap(({ source, claims: set }) => set.map((claim) => ({ ...claim, cause: source, since: "" })));
  for (const board of ["GPU-0", "GPU-1", "GPU-2", "none"]) {
    const [one, other] = [effectOf(known(claims), new Set([board])), effectOf(known(shuffled), new Set([board]))];
    ensure(
      one.work === other.work && JSON.stringify(deadlineOf(one)) === JSON.stringify(deadlineOf(other)),
      () => `${JSON.stringify(one)} or ${JSON.stringify(other)}`,
    );
  }
}

function deadlineOf(effect: ReturnType<typeof effectOf>): number | undefined {
  return effect.work === "leave" ? undefined : effect.deadlineAt;
}

const { publicKey, privateKey } = generateKeyPairSync("ed25519");

function usageChain(draw: Draw): UsageEvent[] {
  let from = 1_700_000_000_000;
  const gpus = draw.list(3, (n) => `GPU-${n}`);
  const records = draw.list(6, () => {
    const to = from + draw.below(100_000);
    const shape = valid(draw, UsageEvent) as UsageEvent;
    const gpuSeconds = ((to - from) / 1000) * gpus.length;
    const figure = () => draw.below(1_000_000) / 1000;
    const record: UsageEvent = {
      ...{
        kind: "usage",
        workload: "w",
        generation: 1,
        from: new Date(from).toISOString(),
        to: new Date(to).toISOString(),
        gpus,
        gpuSeconds,
        final: false,
        signature: "",
      },
      ...("energyJoules" in shape && { energyJoules: figure() }),
      ...("cpuSeconds" in shape && { cpuSeconds: figure() }),
      ...("networkRxBytes" in shape && { networkRxBytes: draw.below(2 ** 32) }),
      ...("vramPeakMiB" in shape && { vramPeakMiB: draw.below(100_000) }),
      ...("gpuUtilizationMeanPercent" in shape && {
        gpuUtilizationMeanPercent: draw.below(101),
        observedSeconds: (to - from) / 1000,
      }),
    };
    from = to;
    return record;
  });
  return records;
}

function stop(draw: Draw): StopOrder {
  return {
    outcome: draw.of(["stopped", "preempted", "failed"]),
    reason: "r",
    graceSeconds: draw.below(200),
    ...(draw.once(2) && { killAt: 1000 * draw.below(300) }),
    ...(draw.once(3) && {
      preemption: { cause: "owner" as const, ...(draw.once(2) && { checkpointUntil: 1000 * draw.below(300) }) },
    }),
  };
}

/** When an order kills at the latest, were it carried out now. */
function lastMoment({ killAt, graceSeconds }: StopOrder, now: number): number {
  return killAt ?? now + graceSeconds * 1000;
}

interface Asked {
  gpus: Gpu[];
  request: GpuRequest;
  holders: Record<string, string>;
}

export const decidersGroup = plainGroup(
  target<Asked>({
    name: "allocate: no GPU twice, none that is held",
    inputs: 40_000,
    make: (draw) => {
      const gpus = machine(draw);
      return { gpus, request: wish(draw), holders: heldBy(draw, gpus) };
    },
    check({ gpus, request, holders }) {
      const given = allowing(
        (error) => error instanceof GpunodeError && ["gpu_busy", "no_matching_gpu"].includes(error.code),
        () => allocate(request, gpus, new Map(Object.entries(holders))),
      );
      if (given === undefined) return;
      ensure(given.length === request.count && new Set(given).size === given.length, `gives ${given.join(", ")}`);
      for (const uuid of given)
        for (const part of reachOf(uuid, gpus)) ensure(holders[part] === undefined, `${part} is held`);
      if (request.nvlink === true && request.migProfile === undefined)
        ensure(allLinked(given, gpus), `${given.join(", ")} are not linked`);
      const backwards = allocate(request, gpus.toReversed(), new Map(Object.entries(holders)));
      ensure(
        backwards.join() === given.join(),
        `another answer for another order: ${backwards.join()} and ${given.join()}`,
      );
    },
  }),
  target<{ gpus: Gpu[]; request: GpuRequest; holders: Holder[]; priority: number }>({
    name: "victims: enough, of lower priority, none in vain",
    inputs: 30_000,
    make: (draw) => {
      const gpus = machine(draw);
      const holders = [...Map.groupBy(Object.entries(heldBy(draw, gpus)), ([, id]) => id)].map(([id, held]) => ({
        ...{
          id,
          gpus: held.map(([uuid]) => uuid),
          priority: 100 * draw.below(4),
          preemptible: !draw.once(4),
          acceptedAt: draw.below(10),
        },
      }));
      return { gpus, request: wish(draw), holders, priority: 100 * draw.below(5) };
    },
    check({ gpus, request, holders, priority }) {
      const heldWithout = (gone: readonly Holder[]) =>
        new Map(
          holders
            .filter((holder) => !gone.includes(holder))
            .flatMap(({ id, gpus: held }) => held.map((uuid) => [uuid, id] as const)),
        );
      const isServed = (gone: readonly Holder[]) =>
        allowing(
          (error) => error instanceof GpunodeError,
          () => allocate(request, gpus, heldWithout(gone)),
        ) !== undefined;
      const victims = chooseVictims(request, { gpus, holders, priority, suffices: () => true });
      const able = holders.filter((holder) => holder.preemptible && holder.priority < priority);
      if (victims === undefined) return ensure(isServed([]) || !isServed(able), "there are victims that would serve");
      ensure(victims.length > 0 && victims.every((victim) => able.includes(victim)), "a victim that may not be one");
      ensure(!isServed([]), "victims where none are needed");
      ensure(isServed(victims), "with the victims gone it is not served");
      for (const victim of victims)
        ensure(!isServed(victims.filter((other) => other !== victim)), `${victim.id} is stopped in vain`);
    },
  }),
  target<{ gpus: Gpu[]; count: number }>({
    name: "choose: the same whatever the order",
    inputs: 20_000,
    make: (draw) => ({ gpus: machine(draw), count: draw.below(6) }),
    check({ gpus, count }) {
      const [a, b] = [choose(unitsOf(gpus, {}), { count }), choose(unitsOf(gpus.toReversed(), {}), { count })];
      ensure(a?.map(({ uuid }) => uuid).join() === b?.map(({ uuid }) => uuid).join(), "it depends on the order");
      ensure(a === undefined || a.length === count, "too few or too many");
    },
  }),
  target<{ checkpointMs: number; graceMs: number; availableMs: number }>({
    name: "planEnd: fits, and leaves time for the signal",
    inputs: 30_000,
    make: (draw) => {
      const ms = () =>
        draw.any(
          () => draw.below(200_000),
          () => Math.min(86_400_000, Math.abs(hostileNumber(draw))),
        );
      return {
        checkpointMs: ms(),
        graceMs: ms(),
        availableMs: draw.any(
          ms,
          () => -ms(),
          () => Number.POSITIVE_INFINITY,
        ),
      };
    },
    check({ availableMs, ...asked }) {
      const { checkpointMs, graceMs, cut } = planEnd(asked, availableMs);
      ensure(checkpointMs >= 0 && graceMs >= 0, "time below zero");
      ensure(checkpointMs <= asked.checkpointMs && graceMs <= asked.graceMs, "more than was asked for");
      ensure(checkpointMs + graceMs <= Math.max(0, availableMs) * (1 + 1e-12), "more than there is");
      ensure(graceMs > 0 || asked.graceMs === 0 || availableMs <= 0, "no time for the signal");
      const isWhole = checkpointMs === asked.checkpointMs && graceMs === asked.graceMs;
      ensure((cut === undefined) === isWhole, `cut "${cut}"`);
    },
  }),
  target<{ before: StopOrder; after: StopOrder; now: number }>({
    name: "harder: an end never comes later",
    inputs: 30_000,
    make: (draw) => ({ before: stop(draw), after: stop(draw), now: 1000 * draw.below(200) }),
    check({ before, after, now }) {
      const result = harder(before, after, now);
      ensure(result.reason === before.reason && result.outcome === before.outcome, "another reason");
      ensure(
        before.killAt === undefined || (result.killAt ?? Number.POSITIVE_INFINITY) <= before.killAt,
        "the kill comes later",
      );
      ensure(result.graceSeconds <= before.graceSeconds, "more grace");
      ensure(
        after.killAt === undefined ||
          lastMoment(result, now) <= Math.max(lastMoment(after, now), now) ||
          lastMoment(result, now) <= lastMoment(before, now),
        "neither of both",
      );
      const again = harder(result, after, now);
      ensure(lastMoment(again, now) <= lastMoment(result, now), "the same order again makes it later");
    },
  }),
  target<Claimed>({
    name: "claims: the order of sources makes no difference",
    inputs: 20_000,
    make: claimed,
    check: sameWhateverTheOrder,
  }),
  target<UsageEvent[]>({
    name: "usage, folded: the bill stays the same",
    inputs: 15_000,
    make: usageChain,
    check(records) {
      const folded = allowing(
        (error) => error instanceof RangeError && records.length === 0,
        () => foldUsage(records),
      );
      if (folded === undefined) return;
      const record = signUsage(folded, (bytes) => sign(null, bytes, privateKey));
      ensure(UsageEvent.safeParse(record).success, () => `no usage record: ${JSON.stringify(record)}`);
      ensure(
        verifyUsage(record, publicKey) && !verifyUsage({ ...record, gpuSeconds: record.gpuSeconds + 1 }, publicKey),
        "the signature says nothing",
      );
      for (const key of ["gpuSeconds", "energyJoules", "cpuSeconds", "networkRxBytes"] as const) {
        const total = records.reduce((sum, one) => sum + (one[key] ?? 0), 0);
        ensure(Math.abs((record[key] ?? 0) - total) < 0.002, `${key} is ${record[key]}, the sum ${total}`);
      }
      ensure((record.gpuUtilizationMeanPercent ?? 0) <= 100, "over 100 %");
      ensure(record.from === records[0]?.from && record.to === records.at(-1)?.to, "another interval");
    },
  }),
);
