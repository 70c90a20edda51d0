import * as z from "zod";
import type { Reliability } from "../protocol/agent-frames.ts";
import { PreemptionCause } from "../protocol/event.ts";
import { Count, Quantity } from "../protocol/scalars.ts";

/** What is counted of each day, and what 30 of them say together. Pure. */

export const DAY_MS = 86_400_000;
/** So many days are told: the one that is going on, and those before it. */
export const DAYS = 30;

/**
 * Lengths of notice that are told apart, in seconds; a length counts as the greatest of these that it reaches. Each is at most
 * half as long again as the one before, from one second on: by so much a median may be told too short, and it is never told too long. The
 * graces people set (10 s, 30 s, a minute, two) are steps of their own and come back exactly.
 */
const NOTICE_STEPS = [
  0, 0.5, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 90, 120, 180, 240, 300, 450, 600, 900, 1200, 1800,
  2700, 3600, 5400, 7200, 10_800, 14_400, 21_600, 28_800, 43_200, 64_800, 86_400,
];

/** What happened on a day, so often; bounded far above any day, so that the sums over 30 are numbers that can be told. */
const Times = Count.max(1_000_000_000);

/** How many notices of each length there were, by the step they reached, and the shortest one to a tenth of a second. */
const Notices = z.object({ minSeconds: Quantity, steps: z.record(z.string().regex(/^\d{1,9}(\.\d)?$/), Times) });
type Notices = z.infer<typeof Notices>;

const Ends = z.object({ succeeded: Times, failed: Times, stopped: Times, preempted: Times, lost: Times });
type Ends = z.infer<typeof Ends>;
export type End = keyof Ends;
const PartOfDay = z.int().min(0).max(DAY_MS);

export const Day = z.object({
  /** Number of the day, 0 is 1970-01-01. */
  day: z.int(),
  upMs: PartOfDay,
  downMs: PartOfDay,
  ends: Ends,
  preemptions: z.partialRecord(PreemptionCause, Notices),
});
export type Day = z.infer<typeof Day>;

export function emptyDay(day: number): Day {
  const ends = { succeeded: 0, failed: 0, stopped: 0, preempted: 0, lost: 0 };
  return { day, upMs: 0, downMs: 0, ends, preemptions: {} };
}

/** Counts a preemption whose work had `noticeMs` to be over. */
export function countNotice(day: Day, cause: PreemptionCause, noticeMs: number): void {
  const seconds = Math.max(0, Math.round(noticeMs / 100) / 10);
  const step = String(NOTICE_STEPS.findLast((edge) => edge <= seconds) ?? 0);
  const known = day.preemptions[cause];
  day.preemptions[cause] = {
    minSeconds: Math.min(seconds, known?.minSeconds ?? seconds),
    steps: { ...known?.steps, [step]: (known?.steps[step] ?? 0) + 1 },
  };
}

/** What the days say together; undefined where they say nothing. */
export function figuresOf(days: readonly Day[]): Omit<Reliability, "since"> | undefined {
  const sum = (of: (day: Day) => number) => days.reduce((total, day) => total + of(day), 0);
  const ended = (state: End) => sum(({ ends }) => ends[state]);
  const workloads = {
    succeeded: ended("succeeded"),
    failed: ended("failed"),
    stopped: ended("stopped"),
    preempted: ended("preempted"),
    lost: ended("lost"),
  };
  const upSeconds = Math.round(sum(({ upMs }) => upMs) / 1000);
  const downSeconds = Math.round(sum(({ downMs }) => downMs) / 1000);
  if (upSeconds + downSeconds === 0 && Object.values(workloads).every((count) => count === 0)) return undefined;
  const preemptions = PreemptionCause.options.flatMap((cause) => {
    const notices = days.flatMap(({ preemptions }) => preemptions[cause] ?? []);
    return notices.length === 0 ? [] : [{ cause, ...noticesTogether(notices) }];
  });
  return { upSeconds, downSeconds, workloads, preemptions };
}

function noticesTogether(notices: readonly Notices[]): { count: number; noticeSeconds: { min: number; p50: number } } {
  const min = Math.min(...notices.map(({ minSeconds }) => minSeconds));
  const steps = notices
    .flatMap(({ steps }) => Object.entries(steps).map(([seconds, count]) => ({ seconds: Number(seconds), count })))
    .sort((a, b) => a.seconds - b.seconds);
  const count = steps.reduce((total, step) => total + step.count, 0);
  let left = Math.ceil(count / 2);
  const middle = steps.find((step) => {
    left -= step.count;
    return left <= 0;
  });
  return { count, noticeSeconds: { min, p50: Math.max(min, middle?.seconds ?? min) } };
}
