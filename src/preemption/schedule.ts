import type { Claim, Raise } from "./claim.ts";
import { type ZoneTime, zoneTime } from "./zone-time.ts";

/** A stretch of the week in which the node is lent. */
export interface Window {
  /** Days on which it starts, 0 = Sunday … 6 = Saturday. */
  days: readonly number[];
  /** Minutes after the midnight of the day it starts on, in the clock on the wall; `toMinute` above 1440 is on the next day. */
  fromMinute: number;
  toMinute: number;
}

/** Whether the node is lent, and when that changes; milliseconds since the epoch. */
export type Lending =
  /** Without `closesAt` it is always lent. `opensAt` is when it is lent again after that. */
  { isOpen: true; closesAt?: number; opensAt?: number } | { isOpen: false; opensAt?: number };

/** The calendar is laid out for so many days: every window comes once in any seven, and switches of the clock can swallow one. */
const DAYS_BACK = 2;
const DAYS_AHEAD = 15;
/** 1 January 1970 was a Thursday. */
const EPOCH_WEEKDAY = 4;

/** How the node is lent at `now`, by windows that may overlap. Without windows it always is. */
export function lendingAt(windows: readonly Window[], zone: ZoneTime, now: number): Lending {
  if (windows.length === 0) return { isOpen: true };
  const today = zone.dayAt(now);
  const stretches = stretchesOf(windows, zone, today);
  const next = stretches.find(({ from }) => from > now);
  const opensAt = next === undefined ? {} : { opensAt: next.from };
  const current = stretches.find(({ from, to }) => from <= now && now < to);
  if (current === undefined) return { isOpen: false, ...opensAt };
  // No break in a week: there is none.
  if (current.to > zone.instantOf(today + 8, 0)) return { isOpen: true };
  return { isOpen: true, closesAt: current.to, ...opensAt };
}

interface Stretch {
  from: number;
  to: number;
}

/** Where the windows lie around a day, in order, those that touch made one. */
function stretchesOf(windows: readonly Window[], zone: ZoneTime, today: number): Stretch[] {
  const found: Stretch[] = [];
  for (let day = today - DAYS_BACK; day <= today + DAYS_AHEAD; day += 1) {
    const weekday = (((day + EPOCH_WEEKDAY) % 7) + 7) % 7;
    for (const { days, fromMinute, toMinute } of windows) {
      if (!days.includes(weekday)) continue;
      const stretch = { from: zone.instantOf(day, fromMinute), to: zone.instantOf(day, toMinute) };
      // One that the switch to daylight saving has swallowed.
      if (stretch.to > stretch.from) found.push(stretch);
    }
  }
  found.sort((a, b) => a.from - b.from);
  const merged: Stretch[] = [];
  for (const stretch of found) {
    const last = merged.at(-1);
    if (last !== undefined && stretch.from <= last.to) last.to = Math.max(last.to, stretch.to);
    else merged.push({ ...stretch });
  }
  return merged;
}

export interface ScheduleOptions {
  windows: readonly Window[];
  /** IANA name. */
  timezone: string;
  /** So long before the end of a window its end is told. */
  noticeMs: number;
  /** The wall clock; milliseconds since the epoch. */
  now(): number;
  /** The clock for deadlines. */
  steady(): number;
  raise: Raise;
}

const DAY_MS = 24 * 60 * 60_000;
/** The wall clock may be set and a machine may sleep: never longer than this without a look at it. */
const LOOK_MS = 60_000;
/** Two clocks read one after the other differ by less; a wall clock that was set differs by more. */
const SAME_MOMENT_MS = 1_000;

/**
 * Holds the whole node while it is not lent: nothing is claimed while a window is open, from `noticeMs` before its end what runs is to be
 * gone by the end, and outside of windows nothing may run. Raises at once where there is something to raise, and then on every change.
 */
export function watchSchedule({ windows, timezone, noticeMs, now, steady, raise }: ScheduleOptions): Disposable {
  // Without windows there is nothing that could ever change.
  if (windows.length === 0) return { [Symbol.dispose]: () => undefined };
  const zone = zoneTime(timezone);
  let told: Claim | undefined;
  /** Worked out once for each change: nothing else comes of it from minute to minute. */
  let known: { from: number; until: number; lending: Lending } | undefined;
  let timer: NodeJS.Timeout | undefined;
  const look = () => {
    const at = now();
    if (known === undefined || at < known.from || at >= known.until) {
      const found = lendingAt(windows, zone, at);
      known = { from: at, until: changeOf(found) ?? at + DAY_MS, lending: found };
    }
    const { lending } = known;
    const claim = claimOf(lending, { zone, timezone, noticeMs, at, toSteady: (wall) => steady() + (wall - at) });
    if (!isSame(claim, told)) raise(claim === undefined ? [] : [claim]);
    told = claim;
    timer = setTimeout(look, Math.min(LOOK_MS, untilChange(lending, noticeMs, at)));
    timer.unref();
  };
  look();
  return { [Symbol.dispose]: () => clearTimeout(timer) };
}

interface Circumstances {
  zone: ZoneTime;
  timezone: string;
  noticeMs: number;
  at: number;
  toSteady(wall: number): number;
}

function claimOf(lending: Lending, { zone, timezone, noticeMs, at, toSteady }: Circumstances): Claim | undefined {
  const { opensAt } = lending;
  const until = opensAt === undefined ? {} : { untilAt: toSteady(opensAt) };
  if (!lending.isOpen) {
    const when = opensAt === undefined ? "" : ` before ${zone.inWords(opensAt, at)} (${timezone})`;
    return { work: "stop", ...until, message: `not lent${when}` };
  }
  const { closesAt } = lending;
  if (closesAt === undefined || closesAt - at > noticeMs) return undefined;
  return {
    work: "stop_in_time",
    deadlineAt: toSteady(closesAt),
    ...until,
    message: `lent until ${zone.inWords(closesAt, at)} (${timezone})`,
  };
}

/** When the node is lent, or no longer; undefined where that is not in sight. */
function changeOf(lending: Lending): number | undefined {
  return lending.isOpen ? lending.closesAt : lending.opensAt;
}

/** Milliseconds until something is to be claimed or let go of; at least one, so that an instant is passed and not met again. */
function untilChange(lending: Lending, noticeMs: number, at: number): number {
  const change = changeOf(lending);
  const moments = change === undefined ? [] : lending.isOpen ? [change - noticeMs, change] : [change];
  return Math.max(1, Math.min(...moments.filter((moment) => moment > at).map((moment) => moment - at)));
}

function isSame(a: Claim | undefined, b: Claim | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  const isNear = (one: number | undefined, other: number | undefined) =>
    one === other || Math.abs((one ?? Number.NaN) - (other ?? Number.NaN)) < SAME_MOMENT_MS;
  return a.work === b.work && isNear(a.deadlineAt, b.deadlineAt) && isNear(a.untilAt, b.untilAt);
}
