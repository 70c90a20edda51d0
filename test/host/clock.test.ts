import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { monotonicMs, steadyClock, uptimeMs } from "../../src/host/clock.ts";

describe("the monotonic clock", () => {
  it("is the same in another process", () => {
    const before = monotonicMs();
    const script = "process.stdout.write(String(Number(process.hrtime.bigint() / 1000n) / 1000))";
    const other = Number(execFileSync(process.execPath, ["-e", script]));
    expect(other).toBeGreaterThan(before);
    expect(other).toBeLessThan(monotonicMs());
  });
});

describe("the time since boot", () => {
  it("is no shorter than the monotonic clock, which leaves out the time asleep", () => {
    // /proc/uptime tells hundredths of a second.
    expect(uptimeMs()).toBeGreaterThanOrEqual(monotonicMs() - 20);
  });
});

describe("the clock for deadlines", () => {
  function machine() {
    const world = { wallMs: 1_700_000_000_000, upMs: 5000, saved: undefined as string | undefined };
    const memory = {
      get: () => world.saved,
      set: (value: string) => {
        world.saved = value;
      },
    };
    const agent = (bootId: string) =>
      steadyClock(bootId, memory, { now: () => world.wallMs, monotonic: () => world.upMs });
    return { world, agent };
  }

  it("starts at the wall clock and passes with the time that passes", () => {
    const { world, agent } = machine();
    const steady = agent("boot-1");
    expect(steady()).toBe(1_700_000_000_000);
    world.wallMs += 250;
    world.upMs += 250;
    expect(steady()).toBe(1_700_000_000_250);
  });

  it("is moved by no step of the wall clock, in this agent and in the next", () => {
    const { world, agent } = machine();
    const steady = agent("boot-1");
    world.wallMs -= 3_600_000;
    world.upMs += 10;
    expect(steady()).toBe(1_700_000_000_010);
    expect(agent("boot-1")()).toBe(1_700_000_000_010);
  });

  it("begins at the wall clock again after a reboot, or where what was saved cannot be read", () => {
    const { world, agent } = machine();
    agent("boot-1");
    world.wallMs += 90_000;
    world.upMs = 1000;
    expect(agent("boot-2")()).toBe(world.wallMs);
    world.saved = "boot-2 tomorrow";
    world.wallMs += 500;
    expect(agent("boot-2")()).toBe(world.wallMs);
  });
});
