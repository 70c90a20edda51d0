import type { Driver } from "./driver.ts";
import { type Fault, hostileProcesses } from "./faults.ts";
import { add, type FileLoad, percentAt, type SimulatedProcess } from "./load.ts";
import type { MigDevice } from "./mig.ts";
import type { Scenario, SimulatedGpu } from "./scenario.ts";
import { fraction } from "./seed.ts";

/** A process and, on a GPU cut by MIG, the device it is on. */
export interface RunningProcess extends SimulatedProcess {
  readonly mig?: MigDevice;
}

/** A GPU at one moment, as numbers; `values.ts` makes nvidia-smi's words of them. */
export interface GpuState {
  readonly gpu: SimulatedGpu;
  /** `handle`: not even a handle is given out. `counters`: known, but what must be read from the board is gone. */
  readonly missing?: "handle" | "counters";
  readonly utilizationPercent: number;
  readonly memoryUtilizationPercent: number;
  /** Without what the driver reserves. */
  readonly vramUsedMiB: number;
  readonly reservedMiB: number;
  readonly processes: readonly RunningProcess[];
  /** Used MiB by MIG device, in the order of the devices. */
  readonly migUsedMiB: readonly number[];
  readonly watts: number;
  readonly limitWatts?: number;
  readonly celsius: number;
  readonly memoryCelsius: number;
  readonly fanPercent: number;
  readonly state: string;
  readonly graphicsMHz: number;
  readonly memoryMHz: number;
  readonly videoMHz: number;
  /** Bits of NVML's nvmlClocksEventReasons. */
  readonly eventReasons: number;
  readonly pcieGeneration: number;
  readonly pcieKBps: readonly [tx: number, rx: number];
  /** Values a fault puts in place of the computed ones, by field name. */
  readonly overrides: Readonly<Record<string, string>>;
}

/** What a sample is taken from. */
export interface SampleContext {
  readonly elapsedMs: number;
  readonly faults: readonly Fault[];
  readonly fileLoads: ReadonlyMap<string, FileLoad>;
}

/** Driver's own use of a MIG device, MiB for each memory slice. */
const migBaseMiB = 6.5;

/** All GPUs of the scenario at one moment. The same moment gives the same state. */
export function sample(scenario: Scenario, context: SampleContext): GpuState[] {
  return scenario.gpus.map((gpu) => sampleGpu(gpu, scenario.driver, context));
}

function sampleGpu(gpu: SimulatedGpu, driver: Driver, context: SampleContext): GpuState {
  const { profile } = gpu;
  const own = loadOf(gpu, context);
  const processes: RunningProcess[] = [...gpu.processes, ...own.whole.processes, ...hostile(gpu, context)];
  const migUsedMiB: number[] = [];
  for (const [at, device] of (gpu.mig ?? []).entries()) {
    const load = own.devices[at];
    processes.push(...(load?.processes ?? []).map((process) => ({ ...process, mig: device })));
    const base = Math.floor(migBaseMiB * device.profile.memorySlices);
    migUsedMiB.push(Math.min(device.profile.vramMiB, base + Math.round(load?.vramUsedMiB ?? 0)));
  }
  const utilization = Math.round(busy(gpu, own, context));
  const reservedMiB = driver.major >= 510 ? profile.reservedMiB : 0;
  const wanted = gpu.mig ? migUsedMiB.reduce((sum, used) => sum + used, 0) : wholeVram(gpu, own.whole, utilization);
  const vramUsedMiB = Math.min(Math.round(wanted), Math.max(0, (profile.vramMiB ?? 0) - reservedMiB));
  const share = utilization / 100;
  // A number that moves a little from second to second, as readings do, and is the same when the second is.
  const jitter = fraction(`${gpu.uuid}/${Math.floor(context.elapsedMs / 1000)}`) - 0.5;
  const limitWatts = gpu.powerLimitWatts ?? profile.watts.limit;
  const span = (limitWatts ?? profile.watts.idle * 10) * 0.94 - profile.watts.idle;
  // Power rises steeply with the first load and flattens towards the limit.
  const watts = profile.watts.idle + span * share ** 0.7 + jitter * profile.watts.idle * 0.04;
  const celsius =
    profile.celsius.idle + (profile.celsius.full - profile.celsius.idle) * share ** 0.8 + jitter * share * 2;
  const idle = utilization === 0 && processes.every((process) => process.type !== "C");
  const lowPower = idle && profile.idleState === "P8";
  const clocks = profile.clocks;
  const capped = limitWatts !== undefined && watts >= limitWatts * 0.93;
  const missing = missingOf(gpu, context);
  return {
    gpu,
    ...(missing !== undefined && { missing }),
    utilizationPercent: utilization,
    memoryUtilizationPercent: Math.round(share * (25 + 30 * fraction(gpu.uuid))),
    vramUsedMiB,
    reservedMiB,
    processes,
    migUsedMiB,
    watts,
    ...(limitWatts !== undefined && { limitWatts }),
    celsius: Math.round(celsius),
    memoryCelsius: Math.round(celsius + 5 + share * 6),
    fanPercent: profile.fan ? Math.round(celsius < 50 ? 0 : 30 + (celsius - 50) * 1.6) : 0,
    state: lowPower ? "P8" : profile.fan && !idle ? "P2" : "P0",
    graphicsMHz: idle ? clocks.idle : stepped(clocks, capped ? 0.96 : 1),
    memoryMHz: lowPower ? clocks.memoryIdle : (clocks.memory[0] ?? 0),
    videoMHz: idle ? clocks.videoIdle : clocks.video,
    eventReasons: (idle ? 0x1 : 0) | (capped ? 0x4 : 0),
    pcieGeneration: lowPower ? 1 : profile.pcieGeneration,
    pcieKBps: [Math.round(350 + share * 180_000 + jitter * 60), Math.round(300 + share * 420_000 - jitter * 60)],
    overrides: Object.assign(
      {},
      ...context.faults.map((fault) => (fault.kind === "override" && fault.gpu === gpu.index ? fault.values : {})),
    ),
  };
}

interface OwnLoad {
  readonly whole: FileLoad;
  /** One for each MIG device. */
  readonly devices: readonly FileLoad[];
}

/** What the load file says of this GPU by UUID, index or `*`, and of each of its MIG devices. */
function loadOf(gpu: SimulatedGpu, { fileLoads }: SampleContext): OwnLoad {
  const nothing: FileLoad = { processes: [] };
  const of = (keys: readonly string[]) => keys.reduce((sum, key) => add(sum, fileLoads.get(key) ?? nothing), nothing);
  return {
    whole: of([gpu.uuid, String(gpu.index), "*"]),
    devices: (gpu.mig ?? []).map((device) => of([device.uuid])),
  };
}

function busy(gpu: SimulatedGpu, own: OwnLoad, { elapsedMs }: SampleContext): number {
  const told = own.whole.utilizationPercent;
  if (told !== undefined) return told;
  // A device's load counts by its part of the whole chip.
  const parts = own.devices.map((load, at) => {
    const multiprocessors = gpu.mig?.[at]?.profile.multiprocessors ?? 0;
    return ((load.utilizationPercent ?? 0) * multiprocessors) / gpu.profile.multiprocessors;
  });
  return Math.min(100, percentAt(gpu.load, elapsedMs) + parts.reduce((sum, part) => sum + part, 0));
}

/** Synthetic load holds half of the memory: a model is loaded before anything is busy. */
function wholeVram(gpu: SimulatedGpu, whole: FileLoad, utilizationPercent: number): number {
  const processes = gpu.processes.reduce((sum, process) => sum + process.usedMiB, 0);
  const told = processes + (whole.vramUsedMiB ?? 0);
  if (told > 0 || whole.vramUsedMiB !== undefined || utilizationPercent === 0) return told;
  return (gpu.profile.vramMiB ?? 0) * 0.5;
}

function hostile(gpu: SimulatedGpu, { faults }: SampleContext): readonly RunningProcess[] {
  return faults.some((fault) => fault.kind === "hostileNames" && fault.gpu === gpu.index) ? hostileProcesses : [];
}

function missingOf(gpu: SimulatedGpu, { faults }: SampleContext): "handle" | "counters" | undefined {
  if (faults.some((fault) => fault.kind === "handleFailure" && fault.gpu === gpu.index)) return "handle";
  if (faults.some((fault) => fault.kind === "lostGpu" && fault.gpu === gpu.index)) return "counters";
  return undefined;
}

function stepped({ max, step }: { readonly max: number; readonly step: number }, part: number): number {
  return Math.floor(max - Math.ceil((max * (1 - part)) / step) * step);
}
