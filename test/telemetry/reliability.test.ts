import { describe, expect, it, onTestFinished } from "vitest";
import { Reliability } from "../../src/protocol/agent-frames.ts";
import { type EndedWork, ReliabilityRecord } from "../../src/telemetry/reliability.ts";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A machine with a wall clock, boots and a disk; agents come and go on it. */
function machine(wall = "2026-01-31T12:00:00.000Z") {
  const world = { wallMs: Date.parse(wall), uptimeMs: 100 * SECOND, bootId: "boot-1" };
  const disk = { text: undefined as string | undefined };
  const warnings: string[] = [];
  const changes = { count: 0 };
  const pass = (ms: number) => {
    world.wallMs += ms;
    world.uptimeMs += ms;
  };
  const agent = () => {
    const record = new ReliabilityRecord({
      memory: {
        get: () => disk.text,
        set: (text) => {
          disk.text = text;
        },
      },
      now: () => world.wallMs,
      uptime: () => world.uptimeMs,
      bootId: world.bootId,
      changed: () => {
        changes.count += 1;
      },
      log: { warn: (_fields, message) => warnings.push(message) },
    });
    onTestFinished(() => record[Symbol.dispose]());
    record.started();
    return record;
  };
  /** Time in which an agent gives a sign of life each minute. */
  const live = (record: ReliabilityRecord, ms: number) => {
    for (let left = ms; left > 0; left -= MINUTE) {
      pass(Math.min(MINUTE, left));
      record.alive();
    }
  };
  const reboot = () => {
    world.bootId += "+1";
    world.uptimeMs = 30 * SECOND;
  };
  return { world, disk, warnings, changes, pass, agent, live, reboot };
}

const ran = (state: EndedWork["state"], more: Partial<EndedWork> = {}): EndedWork => ({ state, startedAt: 1, ...more });

function takenBack(noticeSeconds: number, cause: "owner" | "schedule" = "owner"): EndedWork {
  const noticedAt = 5_000_000;
  const killAt = noticedAt + noticeSeconds * SECOND;
  return ran("preempted", { stop: { graceSeconds: 10, killAt, preemption: { cause, noticedAt } } });
}

function endsOf(record: ReliabilityRecord) {
  return record.figures?.workloads;
}

describe("time up and down", () => {
  it("is not known at the first start; what was before it does not count", () => {
    const { agent, live, pass } = machine();
    const record = agent();
    expect(record.figures).toBeUndefined();
    expect(record.told).toBeUndefined();
    live(record, 10 * MINUTE);
    const known = { upSeconds: 600, downSeconds: 0, since: "2026-01-31T12:00:00.000Z" };
    expect(record.figures).toMatchObject(known);
    pass(50 * SECOND);
    expect(record.figures).toMatchObject(known);
  });

  it("down is from the last sign of life to the next start, a restart of a few seconds included", () => {
    const { agent, live, pass } = machine();
    const first = agent();
    live(first, 10 * MINUTE);
    pass(20 * SECOND);
    first[Symbol.dispose]();
    pass(4 * SECOND);
    expect(agent().figures).toMatchObject({ upSeconds: 620, downSeconds: 4 });
  });

  it("a killed agent's last minute counts as down: nobody wrote that it lived", () => {
    const { agent, live, pass } = machine();
    live(agent(), 10 * MINUTE);
    pass(50 * SECOND);
    expect(agent().figures).toMatchObject({ upSeconds: 600, downSeconds: 50 });
  });

  it("a reboot is measured by the wall clock", () => {
    const { agent, live, pass, reboot } = machine();
    live(agent(), HOUR);
    pass(5 * MINUTE);
    reboot();
    expect(agent().figures).toMatchObject({ upSeconds: 3600, downSeconds: 300 });
  });

  it("a machine that slept while the agent ran was down", () => {
    const { agent, live, pass } = machine();
    const record = agent();
    live(record, HOUR);
    pass(8 * HOUR);
    record.alive();
    live(record, HOUR);
    expect(record.figures).toMatchObject({ upSeconds: 2 * 3600, downSeconds: 8 * 3600 });
  });

  it("goes by days: what is older than 30 of them is gone", () => {
    const { agent, live, pass, disk } = machine("2026-01-01T23:00:00.000Z");
    let record = agent();
    live(record, HOUR);
    record.ended(ran("failed"));
    live(record, HOUR);
    // Off for 27 days and 23 hours: the first day is still one of the 30.
    pass(28 * DAY - HOUR);
    record = agent();
    record.ended(ran("succeeded"));
    expect(record.figures).toMatchObject({
      since: "2026-01-01T23:00:00.000Z",
      upSeconds: 2 * 3600,
      downSeconds: (28 * DAY - HOUR) / SECOND,
      workloads: { succeeded: 1, failed: 1 },
    });
    expect(JSON.parse(disk.text ?? "").days).toHaveLength(30);
    // The next day: the first and its hour are gone, and the failure fell in the second.
    pass(DAY);
    record = agent();
    expect(record.figures).toMatchObject({ since: "2026-01-02T00:00:00.000Z", upSeconds: 3600 });
    expect(endsOf(record)).toMatchObject({ succeeded: 1, failed: 1 });
    pass(DAY);
    record = agent();
    expect(record.figures?.upSeconds).toBe(0);
    expect(endsOf(record)).toMatchObject({ succeeded: 1, failed: 0 });
  });

  it("begins anew after more than 30 days without a sign of life", () => {
    const { agent, live, pass, reboot } = machine();
    live(agent(), HOUR);
    pass(31 * DAY);
    reboot();
    const record = agent();
    expect(record.figures).toBeUndefined();
    live(record, HOUR);
    expect(record.figures).toMatchObject({ upSeconds: 3600, downSeconds: 0, since: "2026-03-03T13:00:00.000Z" });
  });
});

describe("a wall clock that is set", () => {
  it.each([HOUR, 400 * DAY, -HOUR, -400 * DAY])("by %i ms makes no time up or down, while an agent runs", (step) => {
    const { agent, live, world } = machine();
    const record = agent();
    record.ended(ran("succeeded"));
    live(record, HOUR);
    world.wallMs += step;
    live(record, HOUR);
    expect(record.figures).toMatchObject({ upSeconds: 2 * 3600, downSeconds: 0, workloads: { succeeded: 1 } });
    expect(Date.parse(record.figures?.since ?? "")).toBe(world.wallMs - 2 * HOUR);
  });

  it.each([HOUR, 400 * DAY, -HOUR, -400 * DAY])("by %i ms makes none between two agents of a boot", (step) => {
    const { agent, live, world, pass } = machine();
    live(agent(), HOUR);
    world.wallMs += step;
    pass(MINUTE);
    expect(agent().figures).toMatchObject({ upSeconds: 3600, downSeconds: 60 });
  });

  it("a boot into 1970 and its correction cost nothing but the time nobody can know", () => {
    const { agent, live, world, pass, reboot } = machine();
    let record = agent();
    record.ended(ran("succeeded"));
    live(record, HOUR);
    reboot();
    const right = world.wallMs;
    world.wallMs = 0;
    record = agent();
    live(record, 2 * MINUTE);
    expect(record.figures).toMatchObject({ upSeconds: 3720, downSeconds: 0, workloads: { succeeded: 1 } });
    world.wallMs = right + 3 * MINUTE;
    live(record, HOUR);
    pass(MINUTE);
    reboot();
    record = agent();
    expect(record.figures).toMatchObject({ upSeconds: 7320, downSeconds: 60, workloads: { succeeded: 1 } });
    expect(Date.parse(record.figures?.since ?? "")).toBeGreaterThan(right - 2 * HOUR);
  });

  it("a machine without a boot's name goes by the wall clock", () => {
    const { world, agent } = machine();
    world.bootId = "";
    agent();
    world.wallMs += MINUTE;
    world.uptimeMs += 7 * HOUR;
    expect(agent().figures).toMatchObject({ upSeconds: 0, downSeconds: 60 });
  });
});

describe("ends of work", () => {
  it.each([
    ["what succeeded", ran("succeeded"), "succeeded"],
    ["an exit code of its own", ran("failed", { reason: "exit_code" }), "failed"],
    ["its memory limit", ran("failed", { reason: "oom_killed" }), "failed"],
    ["its time limit", ran("failed", { reason: "max_runtime" }), "failed"],
    ["a release", ran("stopped", { reason: "released" }), "stopped"],
    ["a container that somebody took away: the node's", ran("failed", { reason: "container_gone" }), "lost"],
    ["a second start that failed: the node's", ran("failed", { reason: "start_failed" }), "lost"],
    ["a bug of the agent's", ran("failed", { reason: "internal" }), "lost"],
    ["a record that is lost, and with it whether it ran", { state: "lost", reason: "record_lost" }, "lost"],
    ["what was taken back", takenBack(10), "preempted"],
  ] as [string, EndedWork, string][])("%s", (_name, work, counted) => {
    const { agent } = machine();
    const record = agent();
    record.ended(work);
    expect(endsOf(record)).toEqual({ succeeded: 0, failed: 0, stopped: 0, preempted: 0, lost: 0, [counted]: 1 });
  });

  it.each([
    ["never started", { state: "failed", reason: "pull_failed" }],
    ["was released before it started", { state: "stopped", reason: "released" }],
    ["was rejected", { state: "rejected", reason: "no_matching_gpu" }],
    ["runs", ran("running")],
  ] as [string, EndedWork][])("what %s is not counted", (_name, work) => {
    const { agent } = machine();
    const record = agent();
    record.ended(work);
    expect(record.figures).toBeUndefined();
  });

  it("are known to the next agent, also when this one is killed", () => {
    const { agent } = machine();
    agent().ended(ran("succeeded"));
    expect(endsOf(agent())).toMatchObject({ succeeded: 1 });
  });
});

describe("notices", () => {
  it("are told by cause, with the shortest and the middle one", () => {
    const { agent, live } = machine();
    const record = agent();
    for (const seconds of [120, 10, 30, 30, 5]) record.ended(takenBack(seconds));
    live(record, 2 * DAY);
    record.ended(takenBack(60));
    record.ended(takenBack(900, "schedule"));
    expect(record.figures?.preemptions).toEqual([
      { cause: "owner", count: 6, noticeSeconds: { min: 5, p50: 30 } },
      { cause: "schedule", count: 1, noticeSeconds: { min: 900, p50: 900 } },
    ]);
    expect(endsOf(record)?.preempted).toBe(7);
    expect(Reliability.safeParse(record.figures).success).toBe(true);
  });

  it("the shortest is exact to a tenth of a second, the middle one is at most a third too short and never too long", () => {
    for (const seconds of [0, 0.04, 1.1, 1.9, 7.26, 9.96, 14.9, 59.4, 3599, 100_000]) {
      const { agent } = machine();
      const record = agent();
      record.ended(takenBack(seconds));
      record.ended(takenBack(seconds));
      const [figure] = record.figures?.preemptions ?? [];
      const rounded = Math.round(seconds * 10) / 10;
      expect(figure?.noticeSeconds.min).toBe(rounded);
      expect(figure?.noticeSeconds.p50).toBe(rounded);
      record.ended(takenBack(0));
      const p50 = record.figures?.preemptions[0]?.noticeSeconds.p50 ?? Number.NaN;
      expect(p50).toBeLessThanOrEqual(rounded);
      if (seconds >= 1 && seconds <= 86_400) expect(p50).toBeGreaterThanOrEqual((rounded * 2) / 3 - 1e-9);
    }
  });

  it("count as the grace of the stop where nobody wrote down when they were given", () => {
    const { agent } = machine();
    const record = agent();
    record.ended(ran("preempted", { stop: { graceSeconds: 20, killAt: 7, preemption: { cause: "gpu_fault" } } }));
    record.ended(
      ran("preempted", { stop: { graceSeconds: 20, preemption: { cause: "gpu_fault", noticedAt: 1_000_000 } } }),
    );
    expect(record.figures?.preemptions).toEqual([
      { cause: "gpu_fault", count: 2, noticeSeconds: { min: 20, p50: 20 } },
    ]);
  });

  it("of a deadline that was over before they were given are none at all, not less", () => {
    const { agent } = machine();
    const record = agent();
    record.ended(takenBack(-3));
    expect(record.figures?.preemptions[0]?.noticeSeconds).toEqual({ min: 0, p50: 0 });
  });

  it("of very many lengths take little room", () => {
    const { agent, pass, disk } = machine();
    const record = agent();
    for (let day = 0; day < 30; day += 1) {
      for (let index = 0; index < 100; index += 1) record.ended(takenBack(1.2 ** index));
      pass(DAY);
    }
    expect(record.figures?.preemptions[0]?.count).toBe(30 * 100);
    expect(Buffer.byteLength(disk.text ?? "")).toBeLessThan(20_000);
  });
});

describe("what is told", () => {
  it("changes when something is counted, and by the passing of time once an hour only", () => {
    const { agent, live, pass } = machine();
    const record = agent();
    pass(MINUTE);
    expect(record.alive()).toBe(true);
    const first = record.told;
    expect(first?.upSeconds).toBe(60);
    for (let minute = 2; minute <= 60; minute += 1) {
      pass(MINUTE);
      expect(record.alive()).toBe(false);
      expect(record.told).toBe(first);
    }
    expect(record.figures?.upSeconds).toBe(3600);
    pass(MINUTE);
    expect(record.alive()).toBe(true);
    expect(record.told?.upSeconds).toBe(3660);
    live(record, MINUTE);
    record.ended(ran("succeeded"));
    expect(record.told).toEqual(record.figures);
    expect(record.told).toMatchObject({ upSeconds: 3720, workloads: { succeeded: 1 } });
  });

  it("is known again as soon as an agent has started", () => {
    const { agent, live } = machine();
    live(agent(), HOUR);
    expect(agent().told?.upSeconds).toBe(3600);
  });
});

describe("a memory that is damaged", () => {
  const good = () => {
    const { agent, live, disk } = machine();
    live(agent(), HOUR);
    return JSON.parse(disk.text ?? "");
  };
  it.each([
    ["no JSON", () => "\u0000garbage"],
    ["cut short", () => JSON.stringify(good()).slice(0, -20)],
    ["of another shape", () => '{"days":7}'],
    [
      "with days that last longer than a day",
      () => JSON.stringify({ ...good(), days: [{ ...good().days[0], upMs: 1e9 }] }),
    ],
    ["with negative counts", () => JSON.stringify({ ...good(), days: [{ ...good().days[0], ends: { lost: -1 } }] })],
    [
      "with more ends than can be summed up",
      () => {
        const [day] = good().days;
        const ends = { ...day.ends, lost: Number.MAX_SAFE_INTEGER };
        return JSON.stringify({ ...good(), days: [{ ...day, ends }] });
      },
    ],
    ["of a time that no date can have", () => JSON.stringify({ ...good(), at: Number.MAX_SAFE_INTEGER })],
    ["that begins after its end", () => JSON.stringify({ ...good(), since: 8e15 })],
  ])("%s begins anew and is logged", (_name, text) => {
    const { agent, live, disk, warnings } = machine();
    disk.text = text();
    const record = agent();
    expect(warnings).toEqual([expect.stringContaining("begins anew")]);
    expect(record.figures).toBeUndefined();
    live(record, MINUTE);
    expect(record.figures).toMatchObject({ upSeconds: 60, downSeconds: 0 });
    expect(warnings).toHaveLength(1);
    agent();
    expect(warnings).toHaveLength(1);
  });
});
