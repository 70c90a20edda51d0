import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { envNameOf, KEY_NAMES, KEYS } from "../../src/config/keys.ts";
import { resolveConfig } from "../../src/config/load.ts";
import { ConfigError } from "../../src/config/problem.ts";
import { longestStretchMinutes, windows } from "../../src/config/windows.ts";
import { lendingAt, type Window } from "../../src/preemption/schedule.ts";
import { zoneTime } from "../../src/preemption/zone-time.ts";
import type { Draw } from "../draw.ts";
import { hostileNumber, hostileText, mutatedLines, mutatedText } from "../hostile.ts";
import { ensure, type TargetGroup, target } from "../target.ts";

/** Stands wherever a secret may be written: it must never be seen again. */
const CANARY = "canary-7f3a91";
const SECRETS = ["coordinator.join_token", "coordinator.proxy"] as const;

const FILE = `name = "rig"
state_dir = "/var/lib/gpunode"
labels = { site = "garage" }

[coordinator]
url = "wss://coordinator.example"
join_token = "${CANARY}"
proxy = "http://user:${CANARY}@proxy.example:3128"

[telemetry]
interval_ms = 1000

[availability]
windows = ["Mon-Fri 18:00-08:00", "Sat,Sun 00:00-24:00"]
timezone = "Europe/Berlin"

[policy]
images = ["ghcr.io/me/*"]
max_workloads = 4
host_ports = "30000-30999"

[policy.reserve]
cpus = 1.5
`;

function windowText(draw: Draw): string {
  const clock = () => `${String(draw.below(25)).padStart(2, "0")}:${String(draw.below(61)).padStart(2, "0")}`;
  const days = draw.of(["", "Mon ", "Mon-Fri ", "Sat,Sun ", "Fri-Mon ", "sunday ", "Mon-Fri,Sun "]);
  return draw.any(
    () => `${days}${clock()}-${clock()}`,
    () => `${days}${clock()}-${clock()}`,
    () => mutatedText(draw, `${days}${clock()}-${clock()}`, ["Mon", "-", ",", "  ", ":"]),
  );
}

function valueText(draw: Draw): string {
  return draw.any(
    () => String(hostileNumber(draw)),
    () => JSON.stringify(hostileText(draw)),
    () =>
      draw.of([
        "true",
        "[]",
        "{}",
        '"a"',
        "1979-05-27",
        "inf",
        "nan",
        "0x1",
        '["a", 1]',
        `"${CANARY}"`,
        `["${CANARY}"]`,
      ]),
    () => `[${JSON.stringify(windowText(draw))}]`,
  );
}

interface Given {
  file: string;
  env: Record<string, string>;
}

function given(draw: Draw): Given {
  const key = () => draw.of(KEY_NAMES);
  const file = draw.any(
    () => FILE,
    () => mutatedLines(draw, FILE, /[ =]/, ["true", "[", "]", '"', "=", "[[a]]"]),
    () => mutatedText(draw, FILE, ["\n[", "]\n", " = ", '"""', "#", "\n"]),
    () =>
      FILE.replace(`"${CANARY}"`, () =>
        draw.of([`["${CANARY}"]`, `"${CANARY.repeat(500)}"`, `'${CANARY}`, `{ a = "${CANARY}" }`]),
      ),
    () => draw.list(5, () => `${key()} = ${valueText(draw)}\n`).join(""),
  );
  const env = draw.list(3, () => [
    draw.any(
      () => envNameOf(key()),
      () => envNameOf(draw.of(SECRETS)),
      () => `GPUNODE_${hostileText(draw)}`,
    ),
    draw.any(
      () => hostileText(draw),
      () => windowText(draw),
      () => CANARY,
      () => String(hostileNumber(draw)),
    ),
  ]);
  return { file, env: Object.fromEntries(env) };
}

/** True where the canary stands in place of a secret and nowhere else. */
function isSecretOnly(file: string, env: Given["env"]): boolean {
  const secretNames = SECRETS.map(envNameOf);
  return (
    file.split("\n").every((line) => !line.includes(CANARY) || /^(join_token|proxy) *=/.test(line)) &&
    Object.entries(env).every(
      ([name, value]) => ![name, value].join().includes(CANARY) || secretNames.includes(name as never),
    )
  );
}

const ZONES = [
  "UTC",
  "Europe/Berlin",
  "America/New_York",
  "Australia/Lord_Howe",
  "Asia/Kathmandu",
  "Pacific/Apia",
  "America/St_Johns",
  "Africa/Casablanca",
];
const zones = new Map(ZONES.map((name) => [name, { time: zoneTime(name), wall: wallClock(name) }]));

/** Day of the week and minute of the day on the wall, asked of Node and of nothing of ours. */
function wallClock(timeZone: string) {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone,
    hourCycle: "h23",
    weekday: "short",
    hour: "numeric",
    minute: "numeric",
  });
  const names = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
  return (instant: number): { day: number; minute: number } => {
    const part = Object.fromEntries(format.formatToParts(instant).map(({ type, value }) => [type, value]));
    return { day: names.indexOf(part.weekday ?? ""), minute: Number(part.hour) * 60 + Number(part.minute) };
  };
}

interface Lent {
  windows: Window[];
  zone: string;
  now: number;
}

const HOUR_MS = 3_600_000;

/** Open at a minute where the clock on the wall shows one that lies in a window. Not asked near a switch of the clock, where that is not the rule. */
function naivelyOpen({ windows: list, zone }: Lent, instant: number): boolean {
  const { day, minute } = (zones.get(zone) as NonNullable<ReturnType<typeof zones.get>>).wall(instant);
  return list.some(
    ({ days, fromMinute, toMinute }) =>
      (days.includes(day) && fromMinute <= minute && minute < toMinute) ||
      (days.includes((day + 6) % 7) && minute + 1440 < toMinute),
  );
}

/** True where the clock is not put forward or back within two days. */
function isCalm(zone: string, instant: number): boolean {
  const { wall } = zones.get(zone) as NonNullable<ReturnType<typeof zones.get>>;
  const before = wall(instant - 48 * HOUR_MS);
  const [now, after] = [wall(instant), wall(instant + 48 * HOUR_MS)];
  return before.minute === now.minute && now.minute === after.minute && (before.day + 4) % 7 === after.day;
}

function agreesWithTheWall(input: Lent): void {
  const { windows: list, zone, now } = input;
  const lending = lendingAt(list, (zones.get(zone) as NonNullable<ReturnType<typeof zones.get>>).time, now);
  const { opensAt } = lending;
  ensure(opensAt === undefined || opensAt > now, "it opens in the past");
  if (lending.isOpen) {
    const { closesAt } = lending;
    ensure(closesAt === undefined || closesAt > now, "it closes in the past");
    ensure(closesAt === undefined || opensAt === undefined || opensAt > closesAt, "it opens before it has closed");
  }
  if (list.length === 0 || !isCalm(zone, now)) return;
  ensure(
    lending.isOpen === naivelyOpen(input, now),
    () => `it is ${lending.isOpen ? "open" : "shut"}, the clock on the wall says otherwise`,
  );
  const change = lending.isOpen ? lending.closesAt : opensAt;
  if (change === undefined || !isCalm(zone, change)) return;
  ensure(naivelyOpen(input, change) !== lending.isOpen, () => `nothing changes at ${new Date(change).toISOString()}`);
  ensure(
    naivelyOpen(input, change - 60_000) === lending.isOpen,
    () => `it has changed before ${new Date(change).toISOString()}`,
  );
}

export async function configGroup(): Promise<TargetGroup> {
  const folder = mkdtempSync(join(tmpdir(), "gpunode-fuzz-"));
  const path = join(folder, "config.toml");
  const kind = windows();
  const targets = [
    target<Given>({
      name: "configuration: file and environment",
      inputs: 15_000,
      make: given,
      async check({ file, env }) {
        writeFileSync(path, file);
        const shown = await resolveConfig({ file: path, env }).then(
          ({ settings, config, warnings }) => JSON.stringify([settings, config, warnings]),
          (error: unknown) => {
            ensure(error instanceof ConfigError, `no ConfigError: ${error instanceof Error ? error.stack : error}`);
            for (const problem of error.problems)
              ensure(problem.includes(path) || /GPUNODE_|^[a-z]+:/.test(problem), `it names no place: ${problem}`);
            return error.message;
          },
        );
        if (isSecretOnly(file, env)) {
          const at = shown.indexOf(CANARY);
          ensure(at < 0, () => `a secret is shown: ${shown.slice(at - 100, at + 30)}`);
        }
      },
    }),
    target<string>({
      name: "configuration: the value of each kind of key",
      inputs: 50_000,
      make: (draw) =>
        draw.any(
          () => hostileText(draw),
          () => windowText(draw),
          () => String(hostileNumber(draw)),
          () => draw.of(["wss://a.example", "30000-30999", "::1", "a=b,c=d", "http://[::1]:80", "Europe/Berlin"]),
        ),
      check(text) {
        for (const name of KEY_NAMES) {
          const { kind: own } = KEYS[name];
          const reading = own.read(own.fromText(text));
          if (!reading.ok)
            ensure(
              reading.expected.length > 0 && (text.length < 6 || !own.secret || !reading.expected.includes(text)),
              `${name} repeats its secret`,
            );
        }
      },
    }),
    target<string[]>({
      name: "availability windows",
      inputs: 40_000,
      make: (draw) => draw.list(4, () => windowText(draw)),
      check(list) {
        const reading = kind.read(list);
        if (!reading.ok) return;
        for (const { days, fromMinute, toMinute } of reading.value) {
          ensure(days.length > 0 && days.every((day) => day >= 0 && day < 7), "no days");
          ensure(
            fromMinute >= 0 && fromMinute < 1440 && toMinute > fromMinute && toMinute <= 2880,
            `${fromMinute} to ${toMinute}`,
          );
        }
        const longest = longestStretchMinutes(reading.value);
        ensure(longest > 0 === reading.value.length > 0, `the longest is ${longest} minutes`);
      },
    }),
    target<Lent>({
      name: "schedule: what the windows mean",
      inputs: 8000,
      make: (draw) => ({
        windows: draw.list(4, () => {
          const fromMinute = draw.below(1440);
          return {
            days: draw.of([[1], [0, 6], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6]]),
            fromMinute,
            toMinute: fromMinute + 1 + draw.below(1440),
          };
        }),
        zone: draw.of(ZONES),
        now: 1.7e12 + draw.below(2 ** 21) * 60_000,
      }),
      check: agreesWithTheWall,
    }),
  ];
  return {
    targets,
    async [Symbol.asyncDispose]() {
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
