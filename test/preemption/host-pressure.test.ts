import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Claim } from "../../src/preemption/claim.ts";
import {
  type Candidate,
  type HostPressure,
  nextVictim,
  relieveHostPressure,
} from "../../src/preemption/host-pressure.ts";
import type { PressureEvent } from "../../src/protocol/event.ts";

const workload = (id: string, more: Partial<Candidate> = {}): Candidate => ({
  id,
  preemptible: true,
  priority: 100,
  acceptedAt: 0,
  isEnding: false,
  ...more,
});

describe("who has to go", () => {
  it.each([
    ["nobody where nothing runs", [], undefined],
    ["nobody where all are ending already", [workload("a", { isEnding: true })], undefined],
    ["the lower priority", [workload("high", { priority: 200 }), workload("low", { priority: 0 })], "low"],
    [
      "the younger of two of one priority",
      [workload("old", { acceptedAt: 1 }), workload("young", { acceptedAt: 3 }), workload("middle", { acceptedAt: 2 })],
      "young",
    ],
    [
      "one that may be preempted, before a younger one of lower priority that may not",
      [workload("kept", { preemptible: false, priority: 0, acceptedAt: 9 }), workload("batch", { priority: 900 })],
      "batch",
    ],
    [
      "one that may not, where there is no other: the machine comes first",
      [workload("kept", { preemptible: false, priority: 7 }), workload("batch", { isEnding: true })],
      "kept",
    ],
  ])("%s", (_, live, expected) => {
    expect(nextVictim(live)?.id).toBe(expected);
  });
});

describe("while the machine is out of memory or disk", () => {
  let live: Candidate[];
  let told: (readonly Claim[])[];
  let preempted: string[];
  let relief: HostPressure;

  beforeEach(() => {
    vi.useFakeTimers();
    live = [workload("a", { priority: 1 }), workload("b", { priority: 2 }), workload("c", { priority: 3 })];
    told = [];
    preempted = [];
    relief = relieveHostPressure({
      steady: () => Date.now(),
      live: () => live,
      raise: (claims) => told.push(claims),
      preempt: (id, message) => {
        preempted.push(`${id}: ${message}`);
        live = live.map((candidate) => (candidate.id === id ? { ...candidate, isEnding: true } : candidate));
        // The one who ends it tells that at once.
        relief.workloadsChanged();
      },
    });
  });
  afterEach(() => {
    relief[Symbol.dispose]();
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
  });

  const pressure = (
    level: PressureEvent["level"],
    resource: PressureEvent["resource"] = "host_memory",
    valuePercent = 97.1,
  ) => relief.pressure({ kind: "pressure", resource, level, valuePercent, thresholdPercent: 95, freeMiB: 900 });
  const end = (id: string) => {
    live = live.filter((candidate) => candidate.id !== id);
    relief.workloadsChanged();
  };
  const seconds = (count: number) => vi.advanceTimersByTime(count * 1000);
  const victims = () => preempted.map((line) => line.slice(0, 1)).join("");

  it("nothing new is accepted and one workload ends, with the figures", () => {
    pressure("elevated");
    expect(told).toEqual([]);
    pressure("critical");
    const message = "the memory of this machine is nearly used up: 97.1 %, 900 MiB free";
    expect(told).toEqual([[{ work: "leave", message }]]);
    expect(preempted).toEqual([`a: ${message}`]);
    pressure("elevated");
    expect(told.slice(1)).toEqual([[]]);
    seconds(600);
    expect(victims()).toBe("a");
  });

  it("the next one ends only when that one has ended, and 30 s later", () => {
    pressure("critical");
    seconds(600);
    expect(victims()).toBe("a");
    end("a");
    seconds(29);
    relief.workloadsChanged();
    expect(victims()).toBe("a");
    seconds(1);
    expect(victims()).toBe("ab");
    end("b");
    seconds(30);
    expect(victims()).toBe("abc");
    end("c");
    seconds(600);
    expect(victims()).toBe("abc");
  });

  it("nobody else ends when it is over meanwhile; a new bout within 30 s waits for them too", () => {
    pressure("critical");
    end("a");
    seconds(10);
    pressure("normal");
    seconds(600);
    expect(victims()).toBe("a");
    pressure("critical");
    expect(victims()).toBe("ab");
    end("b");
    pressure("elevated");
    seconds(5);
    pressure("critical");
    expect(victims()).toBe("ab");
    seconds(25);
    expect(victims()).toBe("abc");
  });

  it("nobody ends where nothing runs, and one that was just accepted does", () => {
    live = [];
    pressure("critical", "disk", 99);
    expect(told).toMatchObject([[{ work: "leave", message: expect.stringMatching(/^the disk of this machine/) }]]);
    seconds(600);
    expect(preempted).toEqual([]);
    live = [workload("d")];
    relief.workloadsChanged();
    expect(victims()).toBe("d");
  });

  it("memory and disk are each told, and one victim serves both", () => {
    pressure("critical");
    pressure("critical", "disk");
    expect(told.map((claims) => claims.length)).toEqual([1, 2]);
    expect(victims()).toBe("a");
    pressure("elevated");
    end("a");
    seconds(30);
    expect(victims()).toBe("ab");
    pressure("normal", "disk");
    expect(told.map((claims) => claims.length)).toEqual([1, 2, 1, 0]);
  });

  it("a full GPU is its workload's own business", () => {
    pressure("critical", "vram");
    expect(told).toEqual([]);
    expect(preempted).toEqual([]);
  });
});
