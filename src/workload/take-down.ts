import { orAborted } from "./abort.ts";
import { planEnd } from "./end-plan.ts";
import type { ContainerState, Engine, Journal, Log } from "./needs.ts";
import { isTerminal } from "./state.ts";
import { noticeOfEnd, tellTenant } from "./tenant-notice.ts";
import type { WrittenRecord } from "./written-record.ts";

/** A stop signal waits this long at most for the coordinator to hold the notice. */
const NOTICE_WAIT_MS = 500;

export interface TakeDownDoors {
  engine: Engine;
  journal: Journal;
  log: Log;
  /** The wall clock, for what is told. */
  now(): number;
  /** The clock for deadlines. */
  steady(): number;
}

/**
 * Brings a container down as its record's order says: the notice is told, the checkpoint run, the signal sent, and after its grace
 * it is killed. Each part is recorded before it begins, so that a restarted agent goes on where this one was. Rejects with the signal's
 * reason when it is aborted: a harder order, or the agent leaves.
 */
export async function takeDown(
  record: WrittenRecord,
  container: ContainerState,
  doors: TakeDownDoors,
  signal: AbortSignal,
): Promise<void> {
  const { engine, journal, steady } = doors;
  const { stop: stopPolicy } = record.current.spec;
  if (isTerminal(record.current.state)) {
    const { graceSeconds } = stopPolicy;
    return await orAborted(engine.stop(container.id, { signal: stopPolicy.signal, graceSeconds }), signal);
  }
  const noticeSeq = record.current.stop?.preemption?.noticeSeq;
  if (record.current.state !== "stopping") {
    // The notice is with the coordinator before the first signal, or half a second has passed; the tenant is told meanwhile.
    const told = noticeSeq === undefined ? undefined : orAborted(journal.told(noticeSeq, NOTICE_WAIT_MS), signal);
    const notice = noticeOfEnd(record.current, doors);
    const tenant = { containerId: container.id, noticeSignal: stopPolicy.noticeSignal };
    await Promise.all([told, notice && tellTenant(engine, tenant, notice, { signal, log: doors.log })]);
    const { reason, message } = record.order;
    record.move("stopping", { reason, ...(message !== undefined && { message }) });
  }
  if (record.order.preemption !== undefined) await checkpoint(record, container, doors, signal);
  const { graceSeconds: grace, killAt: latest = Number.POSITIVE_INFINITY } = record.order;
  // A checkpoint that was quick leaves no more grace than was asked for.
  const killAt = Math.min(latest, steady() + grace * 1000);
  if (killAt !== latest) record.save({ stop: { ...record.order, killAt } });
  const graceSeconds = Math.max(0, (killAt - steady()) / 1000);
  // A harder order interrupts this wait; the runner's loop then comes back here with the earlier end.
  const stopSignal = record.order.signalled === true ? undefined : stopPolicy.signal;
  const onSignal = () => {
    try {
      record.save({ stop: { ...record.order, signalled: true } });
    } catch (error) {
      doors.log.warn(
        { workload: record.current.id, err: error },
        "the stop signal could not be noted down; going on, and an agent that starts anew may send it again",
      );
    }
  };
  await orAborted(engine.stop(container.id, { signal: stopSignal, graceSeconds, onSignal }), signal);
}

/** Runs the checkpoint once, within its time and the order's, also when an agent's restart comes in between. */
async function checkpoint(
  record: WrittenRecord,
  container: ContainerState,
  { engine, log, steady }: TakeDownDoors,
  signal: AbortSignal,
): Promise<void> {
  const { order } = record;
  const { preemption } = order;
  const { checkpoint: wanted } = record.current.spec.stop;
  if (wanted === undefined || preemption === undefined || preemption.checkpointed === true) return;
  const asked = { checkpointMs: wanted.timeoutSeconds * 1000, graceMs: order.graceSeconds * 1000 };
  const left = order.killAt === undefined ? Number.MAX_SAFE_INTEGER : order.killAt - steady();
  // Begun already, by the agent before or before a harder order: then its end can only have come nearer.
  const until = Math.min(
    preemption.checkpointUntil ?? Number.MAX_SAFE_INTEGER,
    steady() + planEnd(asked, left).checkpointMs,
  );
  if (preemption.checkpointUntil === undefined) {
    record.save({ stop: { ...order, preemption: { ...preemption, checkpointUntil: until } } });
  }
  const timeoutMs = until - steady();
  let message = "cut: no time was left";
  if (timeoutMs > 0) {
    try {
      const { exitCode } = await engine.exec(container.id, wanted.exec, { timeoutMs, signal });
      message = exitCode === undefined ? `cut after ${Math.round(timeoutMs / 1000)} s` : `exited with code ${exitCode}`;
    } catch (error) {
      if (signal.aborted) throw error;
      message = `could not be run: ${error instanceof Error ? error.message : "unknown"}`;
    }
  }
  const { id, gpus } = record.current;
  log.info({ workload: id }, `checkpoint ${message}`);
  const stop = { ...record.order, preemption: { ...preemption, checkpointUntil: until, checkpointed: true } };
  const { cause } = preemption;
  record.save({ stop }, [{ kind: "preemption", phase: "checkpointed", cause, workloads: [id], gpus, message }]);
}
