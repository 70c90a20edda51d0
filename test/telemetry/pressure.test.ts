import { beforeEach, describe, expect, it } from "vitest";
import type { PressureEvent } from "../../src/protocol/event.ts";
import { PressureEvent as PressureEventSchema } from "../../src/protocol/event.ts";
import type { PressureLevel } from "../../src/protocol/gpu-health.ts";
import { type PressureThresholds, PressureWatch } from "../../src/telemetry/pressure.ts";

const thresholds: PressureThresholds = {
  vram: { elevatedPercent: 95, criticalPercent: 99, freeMiB: 2048 },
  hostMemory: { elevatedPercent: 85, criticalPercent: 95, freeMiB: 8192, stallPercent: 20 },
  disk: { elevatedPercent: 90, criticalPercent: 97, freeMiB: 51_200 },
};

let clock = 0;
let events: PressureEvent[] = [];
let watch: PressureWatch;
beforeEach(() => {
  clock = 0;
  events = [];
  watch = new PressureWatch({ thresholds, steady: () => clock, emit: (event) => void events.push(event) });
});

const GPU = "GPU-0";
/** One sample a second. */
function vram(usedMiB: number, totalMiB: number, more: { seconds?: number; reservedMiB?: number } = {}): PressureLevel {
  let level: PressureLevel | undefined;
  for (let second = 0; second < (more.seconds ?? 1); second++) {
    clock += 1000;
    const vramReservedMiB = more.reservedMiB ?? 0;
    level = watch.gpu({ uuid: GPU, vramUsedMiB: usedMiB, vramTotalMiB: totalMiB, vramReservedMiB });
  }
  return level as PressureLevel;
}
const told = () => events.map(({ level }) => level);

describe("VRAM", () => {
  it("goes up and down through its levels, each told once with value and threshold", () => {
    expect(vram(10_000, 24_576, { seconds: 10 })).toBe("normal");
    expect(vram(23_500, 24_576, { seconds: 5 })).toBe("elevated");
    expect(vram(24_450, 24_576, { seconds: 5 })).toBe("critical");
    expect(vram(10_000, 24_576, { seconds: 20 })).toBe("normal");
    expect(events).toEqual([
      {
        kind: "pressure",
        resource: "vram",
        gpu: GPU,
        level: "elevated",
        valuePercent: 95.6,
        thresholdPercent: 95,
        freeMiB: 1076,
      },
      expect.objectContaining({ level: "critical", valuePercent: 99.5, thresholdPercent: 99, freeMiB: 126 }),
      expect.objectContaining({ level: "normal", valuePercent: 40.7, thresholdPercent: 99 }),
    ]);
    for (const event of events) expect(PressureEventSchema.safeParse(event).success).toBe(true);
  });

  it.each([
    ["vLLM at 0.90 of 80 GiB", 73_400, 81_559],
    ["vLLM at 0.95 of 80 GiB", 77_481, 81_559],
    ["TensorFlow at 0.90 of 24 GiB", 22_118, 24_576],
  ])("calls a server that keeps most of it by design normal: %s", (_, used, total) => {
    expect(vram(used, total, { seconds: 120 })).toBe("normal");
    expect(events).toEqual([]);
  });

  it("counts what the driver keeps as not there", () => {
    expect(vram(23_300, 24_576, { seconds: 10 })).toBe("normal");
    expect(vram(23_300, 24_576, { seconds: 10, reservedMiB: 600 })).toBe("elevated");
  });

  it("passes over a spike, and over a dip", () => {
    vram(24_500, 24_576);
    vram(1000, 24_576, { seconds: 5 });
    expect(told()).toEqual([]);
    vram(24_500, 24_576, { seconds: 10 });
    vram(1000, 24_576, { seconds: 10 });
    vram(24_500, 24_576, { seconds: 10 });
    expect(told()).toEqual(["critical"]);
  });

  it.each([93, 95, 97, 98.9, 99.5])("never flaps under noise around %d %%", (middle) => {
    let seed = 42;
    const noise = () => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      return (seed / 2 ** 31 - 0.5) * 2;
    };
    for (let second = 0; second < 3600; second++) vram(Math.min(8192, 8192 * ((middle + noise()) / 100)), 8192);
    expect(told().length).toBeLessThanOrEqual(2);
    const levels = ["normal", ...told()];
    expect(new Set(levels).size).toBe(levels.length);
  });

  it("a load that only grows is told at most twice", () => {
    for (let used = 0; used <= 24_576; used += 16) vram(used, 24_576);
    expect(told()).toEqual(["elevated", "critical"]);
  });

  it("tells again what could not be recorded", () => {
    let refuses = true;
    const told: string[] = [];
    watch = new PressureWatch({
      thresholds,
      steady: () => clock,
      emit: ({ level }) => {
        if (refuses) throw new Error("disk full");
        told.push(level);
      },
    });
    expect(vram(24_500, 24_576, { seconds: 10 })).toBe("normal");
    refuses = false;
    expect(vram(24_500, 24_576)).toBe("critical");
    expect(told).toEqual(["critical"]);
  });

  it("judges each GPU on its own, and forgets one that is gone", () => {
    vram(24_500, 24_576, { seconds: 10 });
    expect(watch.level("vram", "GPU-1")).toBe("normal");
    expect(watch.level("vram", GPU)).toBe("critical");
    watch.forget(GPU);
    expect(watch.level("vram", GPU)).toBe("normal");
  });

  it("says nothing of a GPU that tells no memory", () => {
    expect(watch.gpu({ uuid: GPU })).toBeUndefined();
  });
});

describe("the machine's memory", () => {
  const host = (memoryUsedMiB: number, memoryPressureSome10?: number, options = {}) => {
    let level: PressureLevel | undefined;
    for (let second = 0; second < 5; second++) {
      clock += 1000;
      const stall = memoryPressureSome10 === undefined ? {} : { memoryPressureSome10 };
      level = watch.host({ memoryUsedMiB, memoryTotalMiB: 65_536, ...stall }, options);
    }
    return level;
  };

  it("is judged by what is available", () => {
    expect(host(40_000)).toBe("normal");
    expect(host(60_000)).toBe("elevated");
    expect(host(64_500)).toBe("critical");
  });

  it("counts as elevated where tasks wait for it, however much is free; a kernel without PSI tells none", () => {
    expect(host(10_000, 5)).toBe("normal");
    expect(host(10_000, 40)).toBe("elevated");
    expect(events[0]).toMatchObject({ resource: "host_memory", level: "elevated" });
    expect(host(10_000)).toBe("elevated");
    clock += 20_000;
    expect(host(10_000)).toBe("normal");
  });

  it("is a GPU's too where they share it, and says so", () => {
    expect(host(64_500, undefined, { unified: true })).toBe("critical");
    expect(events[0]).toMatchObject({ unified: true, resource: "host_memory" });
    expect(watch.gpu({ uuid: GPU }, { unified: true })).toBe("critical");
  });

  it("is unknown where the kernel does not tell", () => {
    expect(watch.host({})).toBeUndefined();
  });
});

describe("the disk", () => {
  it("is critical where little is left in share and in MiB", () => {
    const disk = (freeMiB: number, totalMiB: number) => {
      for (let second = 0; second < 5; second++) {
        clock += 1000;
        watch.disk(freeMiB, totalMiB);
      }
      return watch.level("disk");
    };
    expect(disk(100_000, 1_000_000)).toBe("normal");
    expect(disk(40_000, 1_000_000)).toBe("elevated");
    expect(disk(1000, 1_000_000)).toBe("critical");
  });
});
