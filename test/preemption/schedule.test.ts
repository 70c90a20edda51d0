import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { windows } from "../../src/config/windows.ts";
import type { Claim } from "../../src/preemption/claim.ts";
import { type Lending, lendingAt, type Window, watchSchedule } from "../../src/preemption/schedule.ts";
import { zoneTime } from "../../src/preemption/zone-time.ts";

function read(...texts: string[]): readonly Window[] {
  const reading = windows().read(texts);
  if (!reading.ok) throw new Error(reading.expected);
  return reading.value;
}

/** What is known at an instant, as readable as the table. */
function lending(texts: string[], zone: string, at: string): string {
  const found: Lending = lendingAt(read(...texts), zoneTime(zone), Date.parse(at));
  const iso = (instant: number | undefined) =>
    instant === undefined ? "never" : new Date(instant).toISOString().replace(/:00\.000Z$/, "Z");
  return found.isOpen
    ? `open until ${iso(found.closesAt)}, again ${iso(found.opensAt)}`
    : `closed until ${iso(found.opensAt)}`;
}

const OFFICE = ["Mon-Fri 18:00-08:00", "Sat,Sun 00:00-24:00"];
const BERLIN = "Europe/Berlin";
const NEW_YORK = "America/New_York";
/** Half an hour of daylight saving, from 10:30 to 11:00. */
const LORD_HOWE = "Australia/Lord_Howe";
const KOLKATA = "Asia/Kolkata";

describe("the node is lent", () => {
  it.each([
    // An ordinary week in summer: Tuesday 16 June 2026.
    [OFFICE, BERLIN, "2026-06-16T12:00Z", "closed until 2026-06-16T16:00Z"],
    [OFFICE, BERLIN, "2026-06-16T15:59:59.999Z", "closed until 2026-06-16T16:00Z"],
    [OFFICE, BERLIN, "2026-06-16T16:00Z", "open until 2026-06-17T06:00Z, again 2026-06-17T16:00Z"],
    [OFFICE, BERLIN, "2026-06-17T05:59:59.999Z", "open until 2026-06-17T06:00Z, again 2026-06-17T16:00Z"],
    [OFFICE, BERLIN, "2026-06-17T06:00Z", "closed until 2026-06-17T16:00Z"],
    // From Friday evening to the end of Sunday; Sunday night is not Monday's window.
    [OFFICE, BERLIN, "2026-06-19T17:00Z", "open until 2026-06-21T22:00Z, again 2026-06-22T16:00Z"],
    [OFFICE, BERLIN, "2026-06-22T03:00Z", "closed until 2026-06-22T16:00Z"],
    // Half past five ahead.
    [["Mon 09:00-17:00"], KOLKATA, "2026-06-15T03:29Z", "closed until 2026-06-15T03:30Z"],
    [["Mon 09:00-17:00"], KOLKATA, "2026-06-15T03:30Z", "open until 2026-06-15T11:30Z, again 2026-06-22T03:30Z"],
    // One that covers the turn of the year.
    [["Thu 22:00-06:00"], "UTC", "2027-01-01T03:00Z", "open until 2027-01-01T06:00Z, again 2027-01-07T22:00Z"],
    // Overlapping, adjacent, and the same twice.
    [
      ["10:00-12:00", "11:00-13:00", "13:00-14:00", "10:00-12:00"],
      "UTC",
      "2026-06-16T10:30Z",
      "open until 2026-06-16T14:00Z, again 2026-06-17T10:00Z",
    ],
    // Always.
    [[], BERLIN, "2026-06-16T12:00Z", "open until never, again never"],
    [["Mon-Sun 00:00-24:00"], BERLIN, "2026-06-16T12:00Z", "open until never, again never"],
    [["Mon-Sun 00:00-24:00"], BERLIN, "2026-03-29T00:59Z", "open until never, again never"],
    [["Mon-Sun 00:00-24:00"], BERLIN, "2026-10-25T00:30Z", "open until never, again never"],
    [["06:00-18:00", "18:00-06:00"], NEW_YORK, "2026-11-01T05:30Z", "open until never, again never"],
    [["00:00-12:00", "12:00-24:00"], LORD_HOWE, "2026-04-04T14:45Z", "open until never, again never"],
  ])("%j in %s at %s: %s", (texts, zone, at, expected) => {
    expect(lending(texts, zone, at)).toBe(expected);
  });

  it.each([
    // Berlin, 29 March 2026: 02:00 becomes 03:00 at 01:00Z. A night over it is an hour shorter.
    [["22:00-06:00"], BERLIN, "2026-03-28T22:00Z", "open until 2026-03-29T04:00Z, again 2026-03-29T20:00Z"],
    // It would end, or begin, at a time that is skipped: at the switch.
    [["22:00-02:30"], BERLIN, "2026-03-29T00:30Z", "open until 2026-03-29T01:00Z, again 2026-03-29T20:00Z"],
    [["02:30-06:00"], BERLIN, "2026-03-29T00:59Z", "closed until 2026-03-29T01:00Z"],
    [["02:30-06:00"], BERLIN, "2026-03-29T01:00Z", "open until 2026-03-29T04:00Z, again 2026-03-30T00:30Z"],
    // The whole of it is skipped that day.
    [["02:00-03:00"], BERLIN, "2026-03-28T12:00Z", "closed until 2026-03-30T00:00Z"],
    // What is adjacent stays so.
    [
      ["22:00-02:30", "02:30-06:00"],
      BERLIN,
      "2026-03-29T00:30Z",
      "open until 2026-03-29T04:00Z, again 2026-03-29T20:00Z",
    ],
    // New York, 8 March 2026, at 07:00Z.
    [["22:00-06:00"], NEW_YORK, "2026-03-08T05:00Z", "open until 2026-03-08T10:00Z, again 2026-03-09T02:00Z"],
    [["22:00-02:30"], NEW_YORK, "2026-03-08T05:00Z", "open until 2026-03-08T07:00Z, again 2026-03-09T02:00Z"],
    // Lord Howe, 4 October 2026: 02:00 becomes 02:30 at 15:30Z the day before.
    [["22:00-06:00"], LORD_HOWE, "2026-10-03T12:00Z", "open until 2026-10-03T19:00Z, again 2026-10-04T11:00Z"],
    [["22:00-02:15"], LORD_HOWE, "2026-10-03T12:00Z", "open until 2026-10-03T15:30Z, again 2026-10-04T11:00Z"],
  ])("over the switch in spring: %j in %s at %s: %s", (texts, zone, at, expected) => {
    expect(lending(texts, zone, at)).toBe(expected);
  });

  it.each([
    // Berlin, 25 October 2026: 03:00 becomes 02:00 at 01:00Z. A night over it is an hour longer.
    [["22:00-06:00"], BERLIN, "2026-10-24T21:00Z", "open until 2026-10-25T05:00Z, again 2026-10-25T21:00Z"],
    // Half past two comes twice; the first one counts, for an end and for a beginning.
    [["22:00-02:30"], BERLIN, "2026-10-25T00:00Z", "open until 2026-10-25T00:30Z, again 2026-10-25T21:00Z"],
    [["22:00-02:30"], BERLIN, "2026-10-25T01:15Z", "closed until 2026-10-25T21:00Z"],
    [["02:30-06:00"], BERLIN, "2026-10-25T00:29Z", "closed until 2026-10-25T00:30Z"],
    [["02:30-06:00"], BERLIN, "2026-10-25T01:10Z", "open until 2026-10-25T05:00Z, again 2026-10-26T01:30Z"],
    [
      ["22:00-02:30", "02:30-06:00"],
      BERLIN,
      "2026-10-25T00:15Z",
      "open until 2026-10-25T05:00Z, again 2026-10-25T21:00Z",
    ],
    // New York, 1 November 2026, at 06:00Z.
    [["22:00-06:00"], NEW_YORK, "2026-11-01T04:00Z", "open until 2026-11-01T11:00Z, again 2026-11-02T03:00Z"],
    [["Sun 01:30-01:45"], NEW_YORK, "2026-11-01T05:00Z", "closed until 2026-11-01T05:30Z"],
    // Lord Howe, 5 April 2026: 02:00 becomes 01:30 at 15:00Z the day before.
    [["22:00-06:00"], LORD_HOWE, "2026-04-04T12:00Z", "open until 2026-04-04T19:30Z, again 2026-04-05T11:30Z"],
    [["22:00-01:45"], LORD_HOWE, "2026-04-04T12:00Z", "open until 2026-04-04T14:45Z, again 2026-04-05T11:30Z"],
  ])("over the switch in autumn: %j in %s at %s: %s", (texts, zone, at, expected) => {
    expect(lending(texts, zone, at)).toBe(expected);
  });

  it("changes exactly when it is said to, through a year with its switches", () => {
    for (const zoneName of [BERLIN, NEW_YORK, LORD_HOWE]) {
      const zone = zoneTime(zoneName);
      const list = read("Mon-Fri 18:00-08:00", "Sat 01:45-02:15", "Sun 02:30-03:30");
      const end = Date.parse("2027-01-01T00:00Z");
      let at = Date.parse("2026-01-01T00:00Z");
      let changes = 0;
      while (at < end) {
        const now = lendingAt(list, zone, at);
        const next = now.isOpen ? now.closesAt : now.opensAt;
        if (next === undefined) throw new Error("it has to change some day");
        expect(next).toBeGreaterThan(at);
        expect(lendingAt(list, zone, next - 1).isOpen).toBe(now.isOpen);
        expect(lendingAt(list, zone, next).isOpen).toBe(!now.isOpen);
        if (now.isOpen) expect(lendingAt(list, zone, next)).toMatchObject({ opensAt: now.opensAt });
        at = next;
        changes += 1;
      }
      expect(changes).toBeGreaterThan(2 * 52 * 6);
    }
  });
});

describe("the schedule's claims", () => {
  /** The steady clock is elsewhere than the wall clock. */
  const AHEAD = 1_000_000;
  let raised: (readonly Claim[])[];
  let step: number;
  let watch: Disposable;

  beforeEach(() => {
    vi.useFakeTimers();
    raised = [];
    step = 0;
  });
  afterEach(() => {
    watch[Symbol.dispose]();
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
  });

  const start = (at: string, texts: string[], noticeMs = 300_000) => {
    vi.setSystemTime(at);
    watch = watchSchedule({
      windows: read(...texts),
      timezone: BERLIN,
      noticeMs,
      now: () => Date.now() + step,
      steady: () => Date.now() + AHEAD,
      raise: (claims) => raised.push(claims),
    });
  };
  const minutes = (count: number) => vi.advanceTimersByTime(count * 60_000);
  const steadyOf = (at: string) => Date.parse(at) + AHEAD;

  it("nothing while a window is open, notice before its end, a stop until the next one, and nothing again", () => {
    start("2026-06-16T20:00Z", OFFICE);
    minutes(9 * 60 + 54);
    expect(raised).toEqual([]);
    minutes(1);
    const opensAt = steadyOf("2026-06-17T16:00Z");
    const message = "lent until 08:00 (Europe/Berlin)";
    expect(raised).toEqual([
      [{ work: "stop_in_time", deadlineAt: steadyOf("2026-06-17T06:00Z"), untilAt: opensAt, message }],
    ]);
    minutes(4.99);
    expect(raised).toHaveLength(1);
    minutes(0.01);
    expect(raised.slice(1)).toEqual([
      [{ work: "stop", untilAt: opensAt, message: "not lent before 18:00 (Europe/Berlin)" }],
    ]);
    minutes(9 * 60 + 59);
    expect(raised).toHaveLength(2);
    minutes(60 - 59 + 60);
    expect(raised.slice(2)).toEqual([[]]);
  });

  it("are there at once where it begins outside of all windows, with the day of one that is far", () => {
    start("2026-06-16T09:00Z", ["Sat 10:00-12:00"]);
    expect(raised).toEqual([
      [
        {
          work: "stop",
          untilAt: steadyOf("2026-06-20T08:00Z"),
          message: "not lent before Sat 10:00 (Europe/Berlin)",
        },
      ],
    ]);
  });

  it("without notice begin with the end itself", () => {
    start("2026-06-17T05:00Z", OFFICE, 0);
    minutes(59.99);
    expect(raised).toEqual([]);
    minutes(0.02);
    expect(raised).toHaveLength(1);
    expect(raised[0]).toMatchObject([{ work: expect.stringMatching(/^stop/) }]);
    minutes(1);
    expect(raised.at(-1)).toMatchObject([{ work: "stop" }]);
  });

  it("follow a wall clock that is set, and a machine that slept, within a minute", () => {
    start("2026-06-16T20:00Z", OFFICE);
    step = 10 * 3600_000 + 60_000;
    minutes(1);
    expect(raised).toHaveLength(1);
    expect(raised[0]).toMatchObject([{ work: "stop" }]);
    step = 0;
    minutes(1);
    expect(raised.slice(1)).toEqual([[]]);
  });

  it("tell a new deadline where the wall clock moves while notice is given", () => {
    start("2026-06-17T05:56Z", OFFICE);
    expect(raised).toHaveLength(1);
    step = -30_000;
    minutes(1);
    expect(raised.slice(1)).toMatchObject([[{ work: "stop_in_time", deadlineAt: steadyOf("2026-06-17T06:00:30Z") }]]);
  });

  it("are none, and no timer runs, without windows; and none where windows never close", () => {
    start("2026-06-16T09:00Z", []);
    expect(vi.getTimerCount()).toBe(0);
    start("2026-06-16T09:00Z", ["Mon-Sun 00:00-24:00"]);
    minutes(14 * 24 * 60);
    expect(raised).toEqual([]);
  });
});
