import { describe, expect, it } from "vitest";
import { HealthJudge } from "../../src/gpu/judge.ts";
import { GpuHealthEvent } from "../../src/protocol/event.ts";
import type { Gpu, GpuTelemetry } from "../../src/protocol/gpu.ts";

const T0 = 1_700_000_000_000;

function gpu(index: number, changes: Partial<Gpu> = {}): Gpu {
  return {
    index,
    uuid: `GPU-${index}`,
    vendor: "nvidia",
    name: "NVIDIA Test",
    pci: { busId: `00000000:0${index + 1}:00.0`, linkGeneration: 4, linkWidth: 16 },
    links: [],
    health: { status: "healthy", reasons: [] },
    allocatable: true,
    ...changes,
  };
}

/** A machine whose judge lives in a memory that outlives it. */
function machine(gpus: Gpu[] = [gpu(0), gpu(1)]) {
  const saved = new Map<string, string>();
  const world = { now: T0, gpus, judge: undefined as unknown as HealthJudge };
  const start = () => {
    world.judge = new HealthJudge({
      now: () => world.now,
      memory: { get: (key) => saved.get(key), set: (key, value) => void saved.set(key, value) },
    });
  };
  start();
  const read = (more: { busy?: number; failed?: boolean; recovery?: string } = {}) => {
    world.judge.read({
      gpus: world.gpus,
      samples: world.gpus.map(({ uuid }) => ({ uuid, utilizationPercent: more.busy ?? 0 })),
      raw: new Map(world.gpus.map(({ uuid }) => [uuid, new Map([["gpu_recovery_action", more.recovery ?? "N/A"]])])),
      ...(more.failed === true && { failed: { code: "timeout" as const, message: "it hangs" } }),
    });
    let events: GpuHealthEvent[] = [];
    world.judge.changes((told) => {
      events = told;
    });
    for (const event of events) expect(GpuHealthEvent.safeParse(event).success).toBe(true);
    return events.map(({ gpu: uuid, status, reasons }) => [uuid, status, ...reasons.map(({ code }) => code)].join(" "));
  };
  const xid = (text: string, atMs = world.now) =>
    world.judge.kernel({ atMs, text: `NVRM: Xid (PCI:0000:01:00): ${text}` });
  return { world, saved, start, read, xid };
}

const fatal = (judge: HealthJudge) => judge.fatalFaults().map(({ gpu: uuid, code }) => `${uuid} ${code}`);

describe("an Xid", () => {
  it("of a broken GPU fails it, ends its work, and leaves the other alone", () => {
    const { world, read, xid } = machine();
    expect(read()).toEqual([]);
    xid("79, pid=1, GPU has fallen off the bus.");
    expect(fatal(world.judge)).toEqual(["GPU-0 xid_79"]);
    expect(fatal(world.judge)).toEqual([]);
    expect(read()).toEqual(["GPU-0 failed xid_79"]);
    expect(read()).toEqual([]);
    expect(world.judge.gpus(world.gpus).map(({ allocatable }) => allocatable)).toEqual([false, true]);
  });

  it("of a program is told once a minute and changes nothing", () => {
    const { world, read, xid } = machine();
    read();
    xid("31, pid=7, name=python, MMU Fault");
    xid("31, pid=7, name=python, MMU Fault");
    expect(read()).toEqual(["GPU-0 healthy xid_31"]);
    world.now += 61_000;
    xid("31, pid=8, name=python, MMU Fault");
    expect(read()).toEqual(["GPU-0 healthy xid_31"]);
    expect(world.judge.gpus(world.gpus).every(({ allocatable }) => allocatable)).toBe(true);
    expect(fatal(world.judge)).toEqual([]);
  });

  it("that warns passes after an hour without another", () => {
    const { world, read, xid } = machine();
    read();
    xid("63, Row remapping pending");
    expect(read()).toEqual(["GPU-0 degraded xid_63"]);
    expect(world.judge.gpus(world.gpus)[0]).toMatchObject({ allocatable: true });
    world.now += 3_500_000;
    xid("63, Row remapping pending");
    world.now += 3_500_000;
    expect(read()).toEqual([]);
    world.now += 200_000;
    expect(read()).toEqual(["GPU-0 healthy"]);
  });

  it("that needs a reset is over when the driver asks for nothing more", () => {
    const { world, read, xid } = machine();
    read();
    xid("95, Uncontained");
    expect(read({ recovery: "None" })).toEqual(["GPU-0 failed xid_95"]);
    world.now += 30_000;
    expect(read({ recovery: "None" })).toEqual(["GPU-0 healthy"]);
  });

  it("that needs a reset stays where the driver tells no action, until the driver is loaded anew", () => {
    const { world, read, xid } = machine();
    read();
    xid("48, DBE");
    world.now += 86_400_000;
    expect(read()).toEqual(["GPU-0 failed xid_48"]);
    world.judge.kernel({ atMs: world.now, text: "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.65.06" });
    expect(read()).toEqual(["GPU-0 healthy"]);
  });

  it("154 with nothing asked for ends what was before", () => {
    const { read, xid } = machine();
    read();
    xid("154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)");
    expect(read()).toEqual(["GPU-0 failed xid_154"]);
    xid("154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)");
    expect(read()).toEqual(["GPU-0 healthy"]);
  });

  it("of before the agent counts for the GPU and is no news; a program's is passed over", () => {
    const { world, read, xid } = machine();
    read();
    xid("31, MMU Fault", T0 - 5000);
    xid("79, off the bus", T0 - 5000);
    expect(world.judge.fatalFaults()).toMatchObject([{ code: "xid_79", atMs: T0 - 5000 }]);
    expect(read()).toEqual(["GPU-0 failed xid_79"]);
  });

  it("of a GPU nobody knows, and what is no Xid, is nothing", () => {
    const { world, read } = machine();
    read();
    expect(world.judge.kernel({ atMs: T0, text: "NVRM: Xid (PCI:0000:77:00): 79, x" })).toBe(true);
    expect(world.judge.kernel({ atMs: T0, text: "usb 1-1: reset" })).toBe(false);
    expect(read()).toEqual([]);
  });
});

describe("what was told", () => {
  it("is not told again by the next agent, and what changed meanwhile is", () => {
    const { start, read, xid } = machine();
    read();
    xid("79, off the bus");
    expect(read()).toEqual(["GPU-0 failed xid_79"]);
    // The next agent hears the same from the kernel's log before it reads the GPUs.
    start();
    xid("79, off the bus", T0 - 1000);
    expect(read()).toEqual([]);
    // After a reboot the log is another.
    start();
    expect(read()).toEqual(["GPU-0 healthy"]);
  });

  it("survives a memory that holds nonsense", () => {
    const { saved, start, read } = machine();
    saved.set("health_told", "{not json");
    start();
    expect(read()).toEqual([]);
  });
});

describe("a GPU that is gone", () => {
  it("is failed for those who knew it, its work ends, and it is healthy when it is back", () => {
    const { world, read } = machine();
    read();
    const [first, second] = world.gpus;
    world.gpus = [second as Gpu];
    expect(read()).toEqual(["GPU-0 failed gpu_missing"]);
    expect(fatal(world.judge)).toEqual(["GPU-0 gpu_missing"]);
    expect(read()).toEqual([]);
    world.gpus = [first as Gpu, second as Gpu];
    expect(read()).toEqual(["GPU-0 healthy"]);
  });

  it("while no agent was there is told, once", () => {
    const { world, start, read } = machine();
    read();
    world.gpus = [gpu(1)];
    start();
    expect(read()).toEqual(["GPU-0 failed gpu_missing"]);
    start();
    expect(read()).toEqual([]);
  });

  it("is not one that a failed read did not tell of", () => {
    const { world, read } = machine();
    read();
    world.gpus = [];
    expect(read({ failed: true })).toEqual([]);
    world.gpus = [gpu(0), gpu(1)];
    expect(read()).toEqual([]);
  });
});

describe("what a GPU says of itself", () => {
  it("counts with all else, and ends work once where no work outlives it", () => {
    const lost = { status: "failed" as const, reasons: [{ code: "gpu_lost", message: "off the bus" }] };
    const { world, read, xid } = machine();
    read();
    xid("63, pending");
    world.gpus = [gpu(0, { health: lost, allocatable: false }), gpu(1)];
    expect(read()).toEqual(["GPU-0 failed gpu_lost xid_63"]);
    expect(read()).toEqual([]);
    expect(fatal(world.judge)).toEqual(["GPU-0 gpu_lost"]);
    world.gpus = [gpu(0), gpu(1)];
    read();
    world.gpus = [gpu(0, { health: lost, allocatable: false }), gpu(1)];
    read();
    expect(fatal(world.judge)).toEqual(["GPU-0 gpu_lost"]);
  });

  it("withholds one whose fabric is not up although it is no more than degraded", () => {
    const reasons = [{ code: "fabric_not_ready", message: "in progress" }];
    const { world, read } = machine([gpu(0, { health: { status: "degraded", reasons } }), gpu(1)]);
    expect(read()).toEqual(["GPU-0 degraded fabric_not_ready"]);
    expect(world.judge.gpus(world.gpus).map(({ allocatable }) => allocatable)).toEqual([false, true]);
  });
});

describe("heat and power", () => {
  const samples = (throttleReasons: string[]): GpuTelemetry[] => [{ uuid: "GPU-0", throttleReasons }];
  const pass = (m: ReturnType<typeof machine>, seconds: number, reasons: string[]) => {
    for (let second = 0; second < seconds; second++) {
      m.world.now += 1000;
      m.world.judge.sampled(samples(reasons));
    }
  };

  it("that slow it down for minutes degrade it, until they no longer do", () => {
    const m = machine();
    m.read();
    pass(m, 110, []);
    pass(m, 30, ["hw_thermal_slowdown", "hw_slowdown"]);
    expect(m.read()).toEqual([]);
    pass(m, 60, ["sw_thermal_slowdown"]);
    expect(m.read()).toEqual(["GPU-0 degraded thermal_throttling"]);
    pass(m, 60, []);
    expect(m.read()).toEqual([]);
    pass(m, 120, []);
    expect(m.read()).toEqual(["GPU-0 healthy"]);
    pass(m, 130, ["hw_power_brake_slowdown"]);
    expect(m.read()).toEqual(["GPU-0 degraded power_brake"]);
  });

  it("limits the owner set are no fault", () => {
    const m = machine();
    m.read();
    pass(m, 600, ["sw_power_cap", "applications_clocks_setting", "sync_boost", "gpu_idle"]);
    expect(m.read()).toEqual([]);
  });
});

describe("the PCIe link", () => {
  const linked = (linkGeneration: number, linkWidth: number) => [
    gpu(0, { pci: { busId: "00000000:01:00.0", linkGeneration, linkGenerationMax: 5, linkWidth, linkWidthMax: 16 } }),
  ];

  it("is held against the best it has been under load, not against what the board could", () => {
    const { world, read, start } = machine(linked(4, 8));
    expect(read({ busy: 90 })).toEqual([]);
    world.gpus = linked(1, 8);
    expect(read({ busy: 5 })).toEqual([]);
    expect(read({ busy: 90 })).toEqual([]);
    expect(read({ busy: 90 })).toEqual(["GPU-0 degraded pcie_degraded"]);
    start();
    world.gpus = linked(4, 4);
    read({ busy: 90 });
    expect(read({ busy: 90 })).toEqual([]);
    world.gpus = linked(4, 8);
    expect(read({ busy: 90 })).toEqual(["GPU-0 healthy"]);
  });
});

describe("an NVSwitch", () => {
  it("that fails degrades the GPUs on it and no other", () => {
    const links = [{ gpu: "GPU-1", kind: "nvlink" as const }];
    const { world, read } = machine([gpu(0, { links }), gpu(1, { links }), gpu(2)]);
    read();
    const text = (severity: string) => `nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, ${severity}, Link 30 LTSSM`;
    world.judge.kernel({ atMs: world.now, text: text("Non-fatal") });
    expect(read()).toEqual([]);
    world.judge.kernel({ atMs: world.now, text: text("Fatal") });
    expect(read()).toEqual(["GPU-0 degraded nvswitch_fault", "GPU-1 degraded nvswitch_fault"]);
    world.now += 3_700_000;
    expect(read()).toEqual(["GPU-0 healthy", "GPU-1 healthy"]);
  });
});

it("what the disk refuses is told again, once it is taken", () => {
  const { world, read, xid } = machine();
  read();
  xid("79, off the bus");
  xid("31, MMU Fault");
  const refuse = () => {
    throw new Error("disk full");
  };
  expect(() => world.judge.changes(refuse)).toThrow("disk full");
  expect(read()).toEqual(["GPU-0 failed xid_79 xid_31", "GPU-0 failed xid_79"]);
  expect(read()).toEqual([]);
});

it("what is learned of a GPU elsewhere counts until it is over", () => {
  const { world, read } = machine();
  read();
  world.judge.outside("GPU-1", "train", {
    code: "gpu_access_lost",
    message: "the container of train no longer sees it",
  });
  expect(read()).toEqual(["GPU-1 degraded gpu_access_lost"]);
  world.judge.outside("GPU-1", "other", undefined);
  expect(read()).toEqual([]);
  world.judge.outside("GPU-1", "train", undefined);
  expect(read()).toEqual(["GPU-1 healthy"]);
});
