import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { loadConfig, resolveConfig, valueInWords } from "../../src/config/load.ts";
import { systemTimeZone } from "../../src/config/surroundings.ts";
import { longestStretchMinutes, type Window, windows } from "../../src/config/windows.ts";

const kind = windows();

function read(...texts: string[]): readonly Window[] {
  const reading = kind.read(texts);
  if (!reading.ok) throw new Error(reading.expected);
  return reading.value;
}

function load(text: string) {
  const dir = mkdtempSync(join(tmpdir(), "gpunode-windows-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  const file = join(dir, "c.toml");
  writeFileSync(file, text);
  return resolveConfig({ file, env: {} });
}

describe("a window", () => {
  it.each([
    ["Mon-Fri 18:00-08:00", [1, 2, 3, 4, 5], 1080, 1920],
    ["Sat,Sun 00:00-24:00", [0, 6], 0, 1440],
    ["22:00-06:00", [0, 1, 2, 3, 4, 5, 6], 1320, 1800],
    ["Mon-Sun 00:00-24:00", [0, 1, 2, 3, 4, 5, 6], 0, 1440],
    ["fri-MON 9:30-17:00", [0, 1, 5, 6], 570, 1020],
    ["Monday, Wed-thursday 08:00 - 08:00", [1, 3, 4], 480, 1920],
    ["  Tue 00:00-00:00 ", [2], 0, 1440],
    ["Sun-Sun 23:59-24:00", [0], 1439, 1440],
  ])("%j is read", (text, days, fromMinute, toMinute) => {
    expect(read(text)).toEqual([{ days, fromMinute, toMinute, text: text.trim() }]);
  });

  it.each([
    "",
    "Mon",
    "Mon-Fri",
    "18:00",
    "18:00-25:00",
    "18:00-24:01",
    "18:60-19:00",
    "24:00-08:00",
    "Mon-Foo 18:00-08:00",
    "Mon-Wed-Fri 18:00-08:00",
    "Mon,,Tue 18:00-08:00",
    "Mon, 18:00-08:00",
    "Mo 18:00-08:00",
    "Mon-Fri 6pm-8am",
    "Mon-Fri 18:00-08:00 Europe/Berlin",
    "-1:00-08:00",
  ])("%j is none, and that is said with what is expected", (text) => {
    const reading = kind.read(["22:00-06:00", text]);
    expect(reading).toEqual({
      ok: false,
      expected: `windows such as "Mon-Fri 18:00-08:00", "Sat,Sun 00:00-24:00" or "22:00-06:00" (every day), and ${JSON.stringify(text)} is none`,
    });
  });

  it("is one of at most a hundred texts", () => {
    expect(kind.read("22:00-06:00").ok).toBe(false);
    expect(kind.read([5]).ok).toBe(false);
    expect(kind.read(Array(100).fill("22:00-06:00")).ok).toBe(true);
    expect(kind.read(Array(101).fill("22:00-06:00")).ok).toBe(false);
  });

  it("overlaps another without harm, and the longest stretch is over all of them", () => {
    expect(longestStretchMinutes([])).toBe(0);
    expect(longestStretchMinutes(read("Mon 10:00-11:00", "Tue 10:00-12:00"))).toBe(120);
    expect(longestStretchMinutes(read("Mon 10:00-12:00", "Mon 11:00-13:00", "Mon 13:00-13:30"))).toBe(210);
    expect(longestStretchMinutes(read("Sat 22:00-04:00", "Sun 04:00-05:00"))).toBe(420);
    expect(longestStretchMinutes(read("Mon-Fri 18:00-08:00", "Sat,Sun 00:00-24:00"))).toBe((6 + 48) * 60);
    expect(longestStretchMinutes(read("Mon-Sun 00:00-24:00"))).toBe(Number.POSITIVE_INFINITY);
    expect(longestStretchMinutes(read("06:00-18:00", "18:00-06:00"))).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("the machine's time zone", () => {
  /** What /etc/localtime links to. */
  function zoneOf(target: string | undefined, env: NodeJS.ProcessEnv = {}): string {
    const dir = mkdtempSync(join(tmpdir(), "gpunode-zone-"));
    onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
    const link = join(dir, "localtime");
    if (target !== undefined) symlinkSync(target, link);
    return systemTimeZone(env, link);
  }

  it("is what /etc/localtime links to, or UTC", () => {
    expect(zoneOf("/usr/share/zoneinfo/Europe/Berlin")).toBe("Europe/Berlin");
    expect(zoneOf("../usr/share/zoneinfo/posix/America/Argentina/Ushuaia")).toBe("America/Argentina/Ushuaia");
    expect(zoneOf("/usr/share/zoneinfo/Etc/UTC")).toBe("UTC");
    expect(zoneOf(undefined)).toBe("UTC");
  });

  it("is ICU's to say where that does not tell", () => {
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    expect(zoneOf("/srv/clock")).toBe(own);
    expect(zoneOf("/usr/share/zoneinfo/Europe/Berlin", { TZ: ":whatever" })).toBe(own);
  });
});

describe("in a configuration", () => {
  const problems = (text: string) =>
    load(text).then(
      () => [],
      (error: { problems: string[] }) => error.problems.map((problem) => problem.replace(/^\/.*?\.toml/, "FILE")),
    );

  it("what is wrong is said with its line and value", async () => {
    expect(await problems('[availability]\n\nwindows = ["Mon-Fri 18-8"]\n')).toEqual([
      'FILE:3: availability.windows = ["Mon-Fri 18-8"]: expected windows such as "Mon-Fri 18:00-08:00", "Sat,Sun 00:00-24:00" or "22:00-06:00" (every day), and "Mon-Fri 18-8" is none',
    ]);
    expect(await problems('[availability]\ntimezone = "Europe/Berlni"\n')).toEqual([
      'FILE:2: availability.timezone = "Europe/Berlni": expected an IANA time zone such as "Europe/Berlin"',
    ]);
    expect(await problems('[availability]\ntimezone = "+02:00"\n')).toHaveLength(1);
    expect(await problems("[availability]\nnotice_seconds = 86401\n")).toEqual([
      "FILE:2: availability.notice_seconds = 86401: expected a whole number from 0 to 86400",
    ]);
    expect(await problems("[availability.yield_to_owner]\nseconds = 0\n")).toHaveLength(1);
    expect(await problems('[cloud]\nprovider = "ibm"\n')).toEqual([
      'FILE:2: cloud.provider = "ibm": expected one of "auto", "aws", "gcp", "azure"',
    ]);
  });

  it.each([
    ["https://10.0.0.1", "https://10.0.0.1"],
    ["http://user@10.0.0.1", "http://…@10.0.0.1"],
    ["http://10.0.0.1/latest", "http://10.0.0.1/latest"],
    ["http://10.0.0.1/?a", "http://10.0.0.1/?…"],
    ["10.0.0.1", "10.0.0.1"],
  ])("%s is no metadata service", async (url, shown) => {
    expect(await problems(`[cloud]\nmetadata_url = "${url}"\n`)).toEqual([
      `FILE:2: cloud.metadata_url = "${shown}": expected an address such as "http://169.254.169.254" (http, host and port only)`,
    ]);
  });

  it("windows that are never longer than the notice are a contradiction", async () => {
    const text = (notice: number) =>
      `[availability]\nwindows = ["12:00-13:00"]\ntimezone = "UTC"\nnotice_seconds = ${notice}\n`;
    expect(await problems(text(3600))).toEqual([
      "FILE:2: availability.windows are at most 3600 seconds long and availability.notice_seconds is 3600: nothing would ever be accepted; make the windows longer or the notice shorter",
    ]);
    expect(await problems(text(3599))).toEqual([]);
    expect(await problems("[availability]\nnotice_seconds = 86400\n")).toEqual([]);
  });

  it("are shown as they were written", async () => {
    const { settings } = await load('[availability]\nwindows = ["mon-fri 18:00-8:00", "22:00-06:00"]\n');
    const setting = settings.find(({ key }) => key === "availability.windows");
    expect(valueInWords(setting?.value)).toBe('["mon-fri 18:00-8:00", "22:00-06:00"]');
    expect((await loadConfig({ env: {} })).availability.windows).toEqual([]);
  });
});
