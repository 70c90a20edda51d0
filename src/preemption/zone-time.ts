/** A day of the calendar as a number: days since 1 January 1970. */
export type CivilDay = number;

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

/** The clock on the wall somewhere. */
export interface ZoneTime {
  /** The day it is there at an instant (milliseconds since the epoch). */
  dayAt(instant: number): CivilDay;
  /**
   * The instant at which the clock there first shows so many minutes after the midnight of a day; above 1440 means the days after. A
   * time that daylight saving skips is the moment of the switch, one that comes twice is meant the first time: so a later time
   * on the wall is never an earlier instant, and what is adjacent stays adjacent.
   */
  instantOf(day: CivilDay, minutes: number): number;
  /** "18:00", with the weekday ("Mon 18:00") where it is a day or more away from `now`. */
  inWords(instant: number, now: number): string;
}

/** Daylight saving as Node's own time zone data (ICU) has it. Throws `RangeError` for a zone it does not know. */
export function zoneTime(timeZone: string): ZoneTime {
  const fields = new Intl.DateTimeFormat("en-US", {
    timeZone,
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
    second: "numeric",
  });
  const time = new Intl.DateTimeFormat("en-GB", { timeZone, hour: "2-digit", minute: "2-digit" });
  const weekday = new Intl.DateTimeFormat("en-GB", { timeZone, weekday: "short" });

  /** What the wall shows, as if it were UTC, to the second. */
  const wallAt = (instant: number): number => {
    const part: Record<string, number> = {};
    for (const { type, value } of fields.formatToParts(instant)) part[type] = Number(value);
    const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = part;
    return Date.UTC(year, month - 1, day, hour, minute, second);
  };
  const offsetAt = (instant: number) => wallAt(instant) - Math.floor(instant / 1000) * 1000;

  return {
    dayAt: (instant) => Math.floor(wallAt(instant) / DAY_MS),
    instantOf(day, minutes) {
      const wall = day * DAY_MS + minutes * MINUTE_MS;
      // No zone is more than 14 hours from UTC: these two lie before and after any switch that can matter.
      const before = offsetAt(wall - DAY_MS);
      const after = offsetAt(wall + DAY_MS);
      const first = [wall - before, wall - after].sort((a, b) => a - b).find((instant) => wallAt(instant) === wall);
      return first ?? firstInstant(wall - after, wall - before, (instant) => wallAt(instant) > wall);
    },
    inWords: (instant, now) =>
      Math.abs(instant - now) < DAY_MS ? time.format(instant) : `${weekday.format(instant)} ${time.format(instant)}`,
  };
}

/** The first whole second in (from, to] for which `holds`, which stays true once it is. */
function firstInstant(from: number, to: number, holds: (instant: number) => boolean): number {
  let [low, high] = [Math.floor(from / 1000), Math.ceil(to / 1000)];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (holds(middle * 1000)) high = middle;
    else low = middle;
  }
  return high * 1000;
}
