import type { GpuHealthEvent } from "../protocol/event.ts";
import type { Gpu, GpuTelemetry } from "../protocol/gpu.ts";
import type { Health, HealthReason } from "../protocol/gpu-health.ts";
import { worst } from "./nvidia/health.ts";
import { type HealthCode, isAllocatableWith, rowOf, XID_CLASSES } from "./nvidia/health-table.ts";
import type { Inventory } from "./nvidia/inventory.ts";
import { busOf, isDriverLoad, readSXid, readXid, XID_RECOVERY_ACTION, type Xid } from "./nvidia/xid.ts";
import { PcieBaseline } from "./pcie-baseline.ts";
import { Throttling } from "./throttling.ts";

/** A warning of the kernel log is over after this without another. */
const WARNING_MS = 3_600_000;
/** The same passing fault of the same GPU is told again after this. */
const INCIDENT_MS = 60_000;
/** A read tells of what was before it: a driver needs a moment to change its mind after an Xid. */
const SETTLED_MS = 5_000;

export interface JudgeOptions {
  /** The wall clock, milliseconds since the epoch: kernel messages carry it. */
  now(): number;
  /** Kept over restarts and reboots. */
  memory: { get(key: string): string | undefined; set(key: string, value: string): void };
}

/** Work on this GPU cannot go on rightly. */
export interface FatalFault {
  gpu: string;
  code: string;
  message: string;
  /** When it happened; work that began later is not meant. */
  atMs: number;
}

/** What a message of the kernel has left behind on a GPU. */
interface Told {
  code: string;
  message: string;
  class: Exclude<Xid["class"], "application"> | "switch";
  atMs: number;
  /** Told to those whose work it ends. */
  isReported?: true;
}

type Read = Pick<Inventory, "gpus" | "samples" | "failed" | "raw">;

/**
 * How each GPU feels, from all that tells of it: its own answers, samples over time, the kernel's log, and what was there before.
 * Keeps one GPU's trouble from hiding the others, and tells each change once, also over restarts.
 */
export class HealthJudge {
  readonly #options: JudgeOptions;
  readonly #startedMs: number;
  readonly #throttling = new Map<string, Throttling>();
  readonly #pcie: PcieBaseline;
  /** By PCI address: a message of the kernel may come before the GPU is known. */
  readonly #told = new Map<string, Map<string, Told>>();
  readonly #incidents = new Map<string, number>();
  /** By GPU, then by who told it. */
  readonly #outside = new Map<string, Map<string, HealthReason>>();
  #pending: GpuHealthEvent[] = [];
  #fatal: FatalFault[] = [];
  #switch: Told | undefined;
  #gpus: readonly Gpu[] = [];
  #missing = new Map<string, number>();

  constructor(options: JudgeOptions) {
    this.#options = options;
    this.#startedMs = options.now();
    this.#pcie = new PcieBaseline(options.memory);
    for (const uuid of this.#remembered().keys()) if (this.#isRememberedMissing(uuid)) this.#missing.set(uuid, 0);
  }

  /** A full read is over. One that failed tells nothing of what is or is not there. */
  read({ gpus, samples, failed, raw }: Read): void {
    const now = this.#options.now();
    const before = this.#gpus;
    this.#gpus = gpus;
    if (failed !== undefined) return;
    const here = new Set(gpus.map(({ uuid }) => uuid));
    const known = new Set([...before.map(({ uuid }) => uuid), ...this.#remembered().keys()]);
    for (const uuid of known) {
      if (here.has(uuid)) continue;
      if (!this.#missing.has(uuid)) {
        this.#fatal.push({ gpu: uuid, code: "gpu_missing", message: MISSING, atMs: now });
        this.#missing.set(uuid, now);
      }
    }
    for (const gpu of gpus) {
      // Back on the bus, it begins anew.
      if (this.#missing.delete(gpu.uuid)) this.#told.delete(addressOf(gpu));
      const utilization = samples.find(({ uuid }) => uuid === gpu.uuid)?.utilizationPercent;
      this.#pcie.read(gpu, utilization);
      if (raw?.get(gpu.uuid)?.get("gpu_recovery_action")?.trim() === "None") this.#recovered(addressOf(gpu), now);
      this.#noteFatal(gpu, now);
      this.#reportFatal(gpu);
    }
  }

  /** A set of samples. */
  sampled(samples: readonly GpuTelemetry[]): void {
    const now = this.#options.now();
    for (const sample of samples) {
      const throttling = this.#throttling.get(sample.uuid) ?? new Throttling();
      this.#throttling.set(sample.uuid, throttling);
      throttling.sampled(sample, now);
    }
  }

  /** A message of the kernel, in the order they were written, from the boot on. True where it tells of a GPU. */
  kernel({ atMs, text }: { atMs: number; text: string }): boolean {
    if (isDriverLoad(text)) {
      this.#told.clear();
      this.#fatal = [];
      this.#switch = undefined;
      return true;
    }
    const sxid = readSXid(text);
    if (sxid !== undefined) {
      if (sxid.isFatal) {
        this.#switch = { code: "nvswitch_fault", message: sxid.message, class: "switch", atMs };
      }
      return true;
    }
    const xid = readXid(text);
    if (xid === undefined) return false;
    this.#xid(xid, atMs);
    return true;
  }

  /** What the agent has learned of a GPU elsewhere; undefined where it is over. */
  outside(uuid: string, who: string, reason: HealthReason | undefined): void {
    const reasons = this.#outside.get(uuid) ?? new Map<string, HealthReason>();
    this.#outside.set(uuid, reasons);
    if (reason === undefined) reasons.delete(who);
    else reasons.set(who, reason);
  }

  healthOf(uuid: string): Health {
    const gpu = this.#gpus.find((known) => known.uuid === uuid);
    if (gpu === undefined) return { status: "failed", reasons: [{ code: "gpu_missing", message: MISSING }] };
    return this.#judge(gpu);
  }

  /** The GPUs with all that is known of their health, and whether they may be given to new work. */
  gpus(gpus: readonly Gpu[]): Gpu[] {
    return gpus.map((gpu) => {
      const health = this.#judge(gpu);
      const isFit = health.reasons.every(({ code }) => isAllocatableWith(code));
      return { ...gpu, health, allocatable: gpu.allocatable && health.status !== "failed" && isFit };
    });
  }

  /**
   * Tells what has changed since the last call, each once: also what changed while no agent was there. Where `tell` throws (the disk
   * refuses), all of it is told again with the next call.
   */
  changes(tell: (events: GpuHealthEvent[]) => void): void {
    const events = [...this.#pending];
    const told = this.#remembered();
    for (const uuid of new Set([...this.#gpus.map((gpu) => gpu.uuid), ...this.#missing.keys()])) {
      const { status, reasons } = this.healthOf(uuid);
      const key = [status, ...reasons.map(({ code }) => code).sort()].join(" ");
      const before = told.get(uuid) ?? "healthy";
      if (!told.has(uuid) || before !== key) told.set(uuid, key);
      if (before !== key) events.push({ kind: "gpuHealth", gpu: uuid, status, reasons });
    }
    if (events.length > 0) tell(events);
    this.#pending = [];
    const text = JSON.stringify([...told]);
    if (text !== this.#options.memory.get(TOLD)) this.#options.memory.set(TOLD, text);
  }

  /** Faults that running work cannot outlive, each once. */
  fatalFaults(): FatalFault[] {
    const faults = this.#fatal;
    this.#fatal = [];
    return faults;
  }

  #xid(xid: Xid, atMs: number): void {
    const conditions = this.#told.get(xid.bus) ?? new Map<string, Told>();
    this.#told.set(xid.bus, conditions);
    if (xid.xid === XID_RECOVERY_ACTION && xid.recovery === "none") conditions.clear();
    const gpu = this.#gpus.find((known) => addressOf(known) === xid.bus);
    const code = `xid_${xid.xid}`;
    if (xid.class === "application") {
      // What was written before this agent came has been told by the one before it.
      if (gpu === undefined || atMs < this.#startedMs || xid.recovery === "none") return;
      const key = `${gpu.uuid} ${code}`;
      if (atMs - (this.#incidents.get(key) ?? Number.NEGATIVE_INFINITY) < INCIDENT_MS) return;
      this.#incidents.set(key, atMs);
      const { status, reasons } = this.healthOf(gpu.uuid);
      this.#pending.push({
        kind: "gpuHealth",
        gpu: gpu.uuid,
        status,
        reasons: [...reasons, { code, message: xid.message }],
      });
      return;
    }
    conditions.set(code, { code, message: xid.message, class: xid.class, atMs });
    if (gpu !== undefined) this.#reportFatal(gpu);
  }

  /** Faults of the kernel log that end work, each once; also those that came before the GPU was known. */
  #reportFatal(gpu: Gpu): void {
    for (const told of this.#told.get(addressOf(gpu))?.values() ?? []) {
      if (told.isReported === true || told.class === "switch" || !XID_CLASSES[told.class].endsWork) continue;
      told.isReported = true;
      this.#fatal.push({ gpu: gpu.uuid, code: told.code, message: told.message, atMs: told.atMs });
    }
  }

  /** The driver asks for nothing any more: what made it ask is over. Warnings stay their time. */
  #recovered(address: string, readAtMs: number): void {
    const conditions = this.#told.get(address);
    for (const [code, told] of conditions ?? []) {
      if (told.class !== "warning" && told.atMs < readAtMs - SETTLED_MS) conditions?.delete(code);
    }
  }

  #judge(gpu: Gpu): Health {
    const found = [
      ...gpu.health.reasons.map((reason) => ({ ...reason, status: gpu.health.status })),
      ...this.#over(gpu),
    ];
    return {
      status: worst(found.map(({ status }) => status)),
      reasons: found.map(({ code, message }) => ({ code, message })),
    };
  }

  #over(gpu: Gpu): (HealthReason & { status: Health["status"] })[] {
    const now = this.#options.now();
    const isOpen = (told: Told) => !["warning", "switch"].includes(told.class) || now - told.atMs < WARNING_MS;
    const { uuid } = gpu;
    const conditions = [...(this.#told.get(addressOf(gpu)) ?? new Map<string, Told>()).values()].filter(isOpen);
    const row = (code: HealthCode, message: string) => ({ code, message, status: rowOf(code).status });
    const throttling = this.#throttling.get(uuid);
    const pcie = this.#pcie.problem(uuid);
    const [outside] = this.#outside.get(uuid)?.values() ?? [];
    const isOnSwitch = gpu.links.some(({ kind }) => kind === "nvlink");
    return [
      ...conditions.map(({ code, message, class: kind }) => ({
        code,
        message,
        status: kind === "switch" ? ("degraded" as const) : XID_CLASSES[kind].status,
      })),
      ...(this.#switch !== undefined && isOpen(this.#switch) && isOnSwitch
        ? [row("nvswitch_fault", this.#switch.message)]
        : []),
      ...(throttling?.thermal === true
        ? [row("thermal_throttling", "it has been slowed down by heat for minutes: look at its fans, dust and airflow")]
        : []),
      ...(throttling?.brake === true
        ? [
            row(
              "power_brake",
              "it has been slowed down by the power supply for minutes: look at the supply and its cables",
            ),
          ]
        : []),
      ...(pcie === undefined ? [] : [row("pcie_degraded", pcie)]),
      ...(outside === undefined ? [] : [{ ...outside, status: "degraded" as const }]),
    ];
  }

  /** What the GPU itself says and no work outlives; told again only after it was over in between. */
  #noteFatal({ uuid, health }: Gpu, atMs: number): void {
    for (const code of OWN_FATAL) {
      const key = `${uuid} ${code}`;
      const reason = health.reasons.find((known) => known.code === code);
      if (reason === undefined) this.#incidents.delete(key);
      else if (!this.#incidents.has(key)) {
        this.#incidents.set(key, atMs);
        this.#fatal.push({ gpu: uuid, code, message: reason.message, atMs });
      }
    }
  }

  #remembered(): Map<string, string> {
    try {
      return new Map(JSON.parse(this.#options.memory.get(TOLD) ?? "[]") as [string, string][]);
    } catch {
      return new Map();
    }
  }

  #isRememberedMissing(uuid: string): boolean {
    return this.#remembered().get(uuid) === "failed gpu_missing";
  }
}

/** Codes of `healthOf` that end running work. */
const OWN_FATAL: readonly HealthCode[] = ["gpu_lost", "reset_required"];
/** Setting under which it is remembered what was told last of each GPU. */
const TOLD = "health_told";
const MISSING = "nvidia-smi no longer lists it: it was taken out, or has fallen off the bus";

function addressOf({ pci }: Pick<Gpu, "pci">): string {
  return busOf(pci?.busId ?? "") ?? "";
}
