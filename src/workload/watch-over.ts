import { setTimeout as sleep } from "node:timers/promises";
import { linkedController, orAborted } from "./abort.ts";
import type { Policy } from "./admit.ts";
import { heedNotice } from "./heed-notice.ts";
import type { Limits } from "./limits.ts";
import type { ContainerState, Engine, Log } from "./needs.ts";
import { watchHealth } from "./probe.ts";
import { eventOf, type StopOrder, type WorkloadRecord } from "./record.ts";
import { noticeOf, tellTenant } from "./tenant-notice.ts";
import type { WrittenRecord } from "./written-record.ts";

/** 128 + SIGKILL. */
const KILLED_EXIT_CODE = 137;
/** So long the engine may take to learn that the kernel killed a container for its memory. */
const OOM_WORD_MS = 500;
/** `setTimeout` takes no more than a signed 32-bit number of milliseconds. */
const TIMER_MOST_MS = 2 ** 31 - 1;

export interface WatchDoors {
  engine: Engine;
  log: Log;
  /** The wall clock, for what is told. */
  now(): number;
  /** The clock for deadlines. */
  steady(): number;
  policy: Policy;
  /** What the record is held to. */
  limits(record: WorkloadRecord): Limits;
  /** Resolves when the record's notice may have changed. */
  noticeChanged(): Promise<void>;
  /** Orders the end. Throws where the disk refuses. */
  order(stop: StopOrder): void;
}

/**
 * Watches over a container that runs: waits for its end, the run-time limit or the end that a notice announced, whichever is first, and
 * watches its health meanwhile. Rejects with the signal's reason when it is aborted: an order to end, or the agent leaves.
 */
export async function watchOver(
  record: WrittenRecord,
  container: ContainerState,
  doors: WatchDoors,
  signal: AbortSignal,
): Promise<void> {
  const over = linkedController(signal);
  const both = over.signal;
  const limits = [
    waitForEnd(container, doors, both),
    limitRuntime(record, doors, both),
    heedItsNotice(record, container, doors, both),
  ];
  const watching = watchItsHealth(record, container, doors, both);
  try {
    await Promise.race(limits);
  } finally {
    over.controller.abort();
    over.unlink();
    await Promise.allSettled([...limits, watching]);
  }
}

/** undefined where the workload names no probe. */
function watchItsHealth(
  record: WrittenRecord,
  container: ContainerState,
  { engine, log, policy }: WatchDoors,
  signal: AbortSignal,
): Promise<void> | undefined {
  const { spec, ports, id } = record.current;
  if (spec.health === undefined) return undefined;
  return watchHealth(spec.health, {
    engine,
    containerId: container.id,
    ports,
    hostIp: policy.hostIp,
    signal,
    report: (healthy) => {
      log.info({ workload: id, healthy }, healthy ? "workload is healthy" : "workload is unhealthy");
      record.save({ healthy }, [eventOf({ ...record.current, healthy })]);
    },
  });
}

async function heedItsNotice(
  record: WrittenRecord,
  { id: containerId }: ContainerState,
  doors: WatchDoors,
  signal: AbortSignal,
): Promise<void> {
  const { engine, log, steady } = doors;
  const { noticeSignal } = record.current.spec.stop;
  await heedNotice(
    {
      record: () => record.current,
      changed: () => doors.noticeChanged(),
      tell: (notice, until) =>
        tellTenant(engine, { containerId, noticeSignal }, noticeOf(notice, doors), { signal: until, log }),
      order: (stop) => doors.order(stop),
      steady,
    },
    signal,
  );
}

/** A busy engine learns of a kill by the kernel a moment after the exit itself: a kill that nobody sent is looked at again. */
async function waitForEnd({ id }: ContainerState, { engine }: WatchDoors, signal: AbortSignal): Promise<void> {
  const ended = await engine.wait(id, signal);
  const isUnexplained = ended?.exitCode === KILLED_EXIT_CODE && !ended.oomKilled;
  if (isUnexplained) await sleep(OOM_WORD_MS, undefined, { signal });
}

async function limitRuntime(record: WrittenRecord, doors: WatchDoors, signal: AbortSignal): Promise<void> {
  const { maxRuntimeSeconds: limit, runtimeIsCapped } = doors.limits(record.current);
  if (limit === undefined) return await orAborted(new Promise<never>(() => undefined), signal);
  const { steady, policy } = doors;
  const runUntil = (record.current.startedSteady ?? steady()) + limit * 1000;
  for (let left = runUntil - steady(); left > 0; left = runUntil - steady()) {
    await sleep(Math.min(left, TIMER_MOST_MS), undefined, { signal });
  }
  const message =
    runtimeIsCapped === true
      ? `ran for ${limit} s, the longest that policy.max.run_seconds allows`
      : `ran for maxRuntimeSeconds ${limit}`;
  // A grace of a day would make nothing of the owner's cap.
  const graceMost = policy.max?.runSeconds === undefined ? Number.POSITIVE_INFINITY : policy.preemptWithinMs / 1000;
  const graceSeconds = Math.min(record.current.spec.stop.graceSeconds, graceMost);
  doors.order({ outcome: "failed", reason: "max_runtime", message, graceSeconds });
}
