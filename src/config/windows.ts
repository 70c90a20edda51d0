import type { Kind, Reading } from "./kinds.ts";

/** A stretch of the week in which the node is lent, in the clock on the wall. */
export interface Window {
  /** Days on which it starts, 0 = Sunday … 6 = Saturday. */
  days: readonly number[];
  /** Minutes after midnight, 0 to 1439. */
  fromMinute: number;
  /** Minutes after the midnight of the day it starts on, above `fromMinute`; above 1440 where it ends on the next day. */
  toMinute: number;
  /** As the owner wrote it. */
  text: string;
}

const DAY_MINUTES = 24 * 60;
const WEEK_MINUTES = 7 * DAY_MINUTES;
const DAYS = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const EVERY_DAY = [0, 1, 2, 3, 4, 5, 6];
/** More than anybody's week has; what is above it was not written by a person. */
const MOST_WINDOWS = 100;

const EXAMPLES = '"Mon-Fri 18:00-08:00", "Sat,Sun 00:00-24:00" or "22:00-06:00" (every day)';

/** A list of windows; in an environment variable separated by semicolons, since days have commas. */
export function windows(): Kind<readonly Window[]> {
  return {
    name: "list of windows",
    fromText: (value) =>
      value
        .split(";")
        .map((entry) => entry.trim())
        .filter((entry) => entry !== ""),
    read(value): Reading<readonly Window[]> {
      if (!Array.isArray(value) || value.length > MOST_WINDOWS) {
        return { ok: false, expected: `a list of up to ${MOST_WINDOWS} windows such as ${EXAMPLES}` };
      }
      const read: Window[] = [];
      for (const entry of value) {
        const window = typeof entry === "string" ? windowOf(entry) : undefined;
        if (window === undefined) {
          return { ok: false, expected: `windows such as ${EXAMPLES}, and ${JSON.stringify(entry)} is none` };
        }
        read.push(window);
      }
      return { ok: true, value: read };
    },
  };
}

/** All seven days by their whole names, with room to spare. */
const LONGEST_TEXT = 200;

/** `[days ]HH:MM-HH:MM`; undefined where it is none. A window that ends at or before its start ends on the next day. */
function windowOf(text: string): Window | undefined {
  // The pattern tries each run of blanks in many ways: a megabyte of them would take minutes.
  if (text.length > LONGEST_TEXT) return undefined;
  const [, dayText, fromText = "", toText = ""] =
    /^\s*(?:([a-z][a-z,\s-]*?)\s+)?(\d{1,2}:\d{2})\s*-\s*(\d{1,2}:\d{2})\s*$/i.exec(text) ?? [];
  const days = dayText === undefined ? EVERY_DAY : daysOf(dayText);
  const fromMinute = minuteOf(fromText);
  const toMinute = minuteOf(toText);
  if (days === undefined || fromMinute === undefined || toMinute === undefined || fromMinute === DAY_MINUTES) {
    return undefined;
  }
  return { days, fromMinute, toMinute: toMinute > fromMinute ? toMinute : toMinute + DAY_MINUTES, text: text.trim() };
}

/** `Mon`, `Mon-Fri`, `Fri-Mon`, `Sat,Sun`, in any mixture. */
function daysOf(text: string): number[] | undefined {
  const days = new Set<number>();
  for (const part of text.split(",")) {
    const named = part.split("-");
    const first = dayOf(named[0] ?? "");
    const last = dayOf(named.at(-1) ?? "");
    if (first === undefined || last === undefined || named.length > 2) return undefined;
    for (let day = first; ; day = (day + 1) % 7) {
      days.add(day);
      if (day === last) break;
    }
  }
  return [...days].sort((a, b) => a - b);
}

/** A day by its English name or the first three letters of it. */
function dayOf(text: string): number | undefined {
  const name = text.trim().toLowerCase();
  const day = DAYS.findIndex((known) => known === name || known.slice(0, 3) === name);
  return day < 0 ? undefined : day;
}

function minuteOf(text: string): number | undefined {
  const [hours = Number.NaN, minutes = Number.NaN] = text.split(":").map(Number);
  const minute = hours * 60 + minutes;
  return minutes < 60 && minute <= DAY_MINUTES ? minute : undefined;
}

/** The longest stretch in which the node is lent without a break, in minutes; Infinity where it never ends. */
export function longestStretchMinutes(list: readonly Window[]): number {
  // Twice the week, so that what runs over its end is seen whole.
  const stretches = list
    .flatMap(({ days, fromMinute, toMinute }) =>
      [0, WEEK_MINUTES].flatMap((week) =>
        days.map((day) => {
          const midnight = week + day * DAY_MINUTES;
          return { from: midnight + fromMinute, to: midnight + toMinute };
        }),
      ),
    )
    .sort((a, b) => a.from - b.from);
  let longest = 0;
  let begin = Number.NEGATIVE_INFINITY;
  let end = Number.NEGATIVE_INFINITY;
  for (const { from, to } of stretches) {
    if (from > end) begin = from;
    end = Math.max(end, to);
    longest = Math.max(longest, end - begin);
  }
  return longest > WEEK_MINUTES ? Number.POSITIVE_INFINITY : longest;
}

/** An IANA time zone this Node knows: "Europe/Berlin". */
export function timeZone(): Kind<string> {
  return {
    name: "string",
    fromText: (value) => value,
    read(value) {
      try {
        // Offsets such as "+01:00" are refused: they have no daylight saving, which is what a zone is asked for.
        if (typeof value !== "string" || !/^[A-Za-z]/.test(value)) throw new RangeError();
        new Intl.DateTimeFormat("en", { timeZone: value });
        return { ok: true, value };
      } catch {
        return { ok: false, expected: 'an IANA time zone such as "Europe/Berlin"' };
      }
    },
  };
}
