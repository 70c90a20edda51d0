import type { EventBody, PreemptionCause } from "../protocol/event.ts";
import { askedFor, planEnd } from "./end-plan.ts";
import { pendingNotice, type WorkloadRecord } from "./record.ts";
import type { Runner } from "./runner.ts";

/** Why and by when GPUs are taken back. */
export interface PreemptWhy {
  cause: PreemptionCause;
  message?: string;
  /** Time for checkpoint and grace together, instead of what the workload asked for. */
  graceSeconds?: number;
  /** The work must be over by then, by the steady clock in milliseconds. */
  deadlineAt?: number;
  /**
   * `now` (where absent): the end begins with the notice. `late`: as late as checkpoint and grace allow before `deadlineAt`. `never`:
   * a warning only.
   */
  begin?: "now" | "late" | "never";
}

export interface PreemptDoors {
  now(): number;
  steady(): number;
  /** Work taken back at once is gone within so long, whatever it asked for. */
  withinMs: number;
  /** All generations of a workload that have not ended. Throws `unknown_workload` where there never was one. */
  live(id: string): Runner[];
  /** Changed records and the events that tell them, in one commit; then the runners go on from there. */
  commit(changes: readonly Change[], events: readonly EventBody[]): void;
}

/** A record as it is to become. */
export interface Change {
  runner: Runner;
  record: WorkloadRecord;
}

/** A deadline on the wall, told anew by the next agent, is by the steady clock a little another one: that is no sooner end. */
const SAME_MOMENT_MS = 1_000;

/** The record under its notice, with when it must be over and what it gets less of. */
interface Told extends Change {
  deadlineAt?: number;
  cut?: string;
}

/**
 * Takes the GPUs of workloads back: one notice for all of them, on its way before the first signal. Who is ending already gets no
 * second notice, its end can only come sooner; who is under notice already gets another one only where that comes sooner. Returns how
 * many were told. Ids that have ended are left out.
 */
export function preempt(ids: readonly string[], why: PreemptWhy, doors: PreemptDoors): number {
  const at = doors.steady();
  const live = [...new Set(ids)].flatMap((id) => doors.live(id));
  for (const runner of live) endSooner(runner, why, at, doors.withinMs);
  const { changes, events } = planPreemption(live, why, doors);
  if (changes.length > 0) doors.commit(changes, events);
  return changes.length;
}

/** The records under their notice, and the one notice that tells all of them; nothing where nobody is to be told. Pure. */
export function planPreemption(
  runners: readonly Runner[],
  why: PreemptWhy,
  { now, steady, withinMs }: Pick<PreemptDoors, "now" | "steady" | "withinMs">,
): { changes: readonly Change[]; events: EventBody[] } {
  const at = steady();
  const told = runners.flatMap((runner) => noticed(runner, why, at, withinMs) ?? []);
  if (told.length === 0) return { changes: [], events: [] };
  const deadlines = told.flatMap(({ deadlineAt }) => deadlineAt ?? []);
  const deadline = now() + Math.max(...deadlines) - at;
  const message = messageOf(why, told);
  const notice: EventBody = {
    kind: "preemption",
    phase: "notice",
    cause: why.cause,
    workloads: told.map(({ record }) => record.id),
    gpus: told.flatMap(({ record }) => record.gpus),
    ...(deadlines.length > 0 && { deadline: new Date(deadline).toISOString() }),
    ...(message !== undefined && { message }),
  };
  return { changes: told, events: [notice] };
}

/** Takes notices back whose end has not begun; others are left out. Returns how many were told. */
export function withdraw(ids: readonly string[], message: string, doors: PreemptDoors): number {
  const changes = [...new Set(ids)].flatMap((id) =>
    doors.live(id).flatMap((runner) => {
      const notice = pendingNotice(runner.record);
      return notice === undefined
        ? []
        : [{ runner, cause: notice.cause, record: { ...runner.record, notice: { ...notice, withdrawn: true } } }];
    }),
  );
  if (changes.length === 0) return 0;
  const byCause = Map.groupBy(changes, ({ cause }) => cause);
  const events = [...byCause].map(([cause, of]): EventBody => {
    const records = of.map(({ record }) => record);
    const [workloads, gpus] = [records.map(({ id }) => id), records.flatMap((record) => record.gpus)];
    return { kind: "preemption", phase: "withdrawn", cause, workloads, gpus, message };
  });
  doors.commit(changes, events);
  return changes.length;
}

/**
 * With a notice its deadline stands unless another is asked for; without one the workload's own grace is enough, and the provider's limit
 * holds for it too.
 */
function endSooner(runner: Runner, { graceSeconds, deadlineAt }: PreemptWhy, at: number, withinMs: number): void {
  const { stop, spec } = runner.record;
  if (stop === undefined) return;
  const graceMs = graceSeconds === undefined ? undefined : graceSeconds * 1000;
  const ownMs = stop.preemption === undefined ? Math.min(spec.stop.graceSeconds * 1000, withinMs) : undefined;
  const leftMs = graceMs ?? ownMs;
  if (leftMs === undefined && deadlineAt === undefined) return;
  const killAt = earliest(leftMs === undefined ? undefined : at + leftMs, deadlineAt);
  runner.order({ ...stop, graceSeconds: Math.max(0, killAt - at) / 1000, killAt });
}

/** undefined where it is ending already, or the notice it has stands. */
function noticed(runner: Runner, why: PreemptWhy, at: number, withinMs: number): Told | undefined {
  const { record } = runner;
  if (record.stop !== undefined) return undefined;
  const { cause, message, graceSeconds, begin = "now" } = why;
  const told = { cause, ...(message !== undefined && { message }), noticedAt: at };
  const before = pendingNotice(record);
  if (begin === "never") return before === undefined ? { runner, record: { ...record, notice: told } } : undefined;

  const asked = { ...askedFor(record.spec), ...(graceSeconds !== undefined && { graceMs: graceSeconds * 1000 }) };
  const wanted = asked.checkpointMs + asked.graceMs;
  const graceAt = graceSeconds === undefined ? undefined : at + graceSeconds * 1000;
  const bound = earliest(why.deadlineAt, graceAt, before?.deadlineAt);
  // What has not begun to run has nothing to save.
  if (begin === "late" && record.state === "running" && bound - wanted > at) {
    if (before?.deadlineAt !== undefined && before.deadlineAt <= bound + SAME_MOMENT_MS) return undefined;
    const notice = { ...told, deadlineAt: bound, beginAt: bound - wanted };
    return { runner, record: { ...record, notice }, deadlineAt: bound };
  }
  // The provider's limit is for those who would take longer; a deadline that came with the order is longer or shorter as it says.
  const deadlineAt = bound === Number.POSITIVE_INFINITY && wanted > withinMs ? at + withinMs : bound;
  const dueAt = Math.min(deadlineAt, at + wanted);
  const { cut } = planEnd(asked, deadlineAt - at);
  const stopped = runner.recordWith({
    outcome: "preempted",
    reason: cause,
    ...(message !== undefined && { message }),
    graceSeconds: asked.graceMs / 1000,
    ...(deadlineAt !== Number.POSITIVE_INFINITY && { killAt: deadlineAt }),
    preemption: { cause, noticedAt: at, dueAt },
  });
  if (stopped === undefined) return undefined;
  return { runner, record: stopped, deadlineAt: dueAt, ...(cut !== undefined && { cut }) };
}

function messageOf({ message }: PreemptWhy, told: readonly Told[]): string | undefined {
  const cuts = told.flatMap(({ record, cut }) => (cut === undefined ? [] : [`${record.id} gets ${cut}`]));
  if (cuts.length === 0) return message;
  const rest = `what was asked for does not fit before the deadline: ${cuts.join("; ")}`;
  return message === undefined ? rest : `${message}; ${rest}`;
}

/** Infinity where all are undefined. */
function earliest(...times: readonly (number | undefined)[]): number {
  return Math.min(...times.map((time) => time ?? Number.POSITIVE_INFINITY));
}
