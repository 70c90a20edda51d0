import type { HostTelemetry } from "../protocol/agent-frames.ts";
import type { PressureEvent } from "../protocol/event.ts";
import type { GpuTelemetry } from "../protocol/gpu.ts";
import type { PressureLevel } from "../protocol/gpu-health.ts";

/** From where a resource counts as under pressure; see docs/pressure.md. */
export interface Limits {
  /** Percent in use, of what can be used. */
  elevatedPercent: number;
  criticalPercent: number;
  /** While more than this is free the pressure is normal, whatever the percentage; critical takes a quarter of it. */
  freeMiB: number;
}

export interface PressureThresholds {
  vram: Limits;
  /** `stallPercent`: share of the last ten seconds in which some task waited for memory (PSI). */
  hostMemory: Limits & { stallPercent: number };
  disk: Limits;
}

/** A level is left only this many points below the threshold that brought it. */
const HYSTERESIS_POINTS = 3;
/** A higher level must hold so long before it is told: an allocation that is given back at once is no pressure. */
const RISE_AFTER_MS = 2_000;
/** A lower one must hold longer: work that breathes around a threshold is told once. */
const FALL_AFTER_MS = 15_000;

const ORDER: readonly PressureLevel[] = ["normal", "elevated", "critical"];

/** How one resource stands now. */
interface Reading {
  resource: PressureEvent["resource"];
  gpu?: string;
  usedPercent: number;
  freeMiB: number;
  /** Where the kernel tells stalls: percent, and from where they count. */
  stall?: { percent: number; from: number };
  unified?: true;
}

interface Track {
  level: PressureLevel;
  /** What it would become, and since when that holds without a break. */
  next: { level: PressureLevel; since: number } | undefined;
}

export interface PressureOptions {
  thresholds: PressureThresholds;
  /** A clock that only passes; milliseconds. */
  steady: () => number;
  /** Told of every change of a level, once. One that throws (the disk refuses) is told again with the next reading. */
  emit: (event: PressureEvent) => void;
}

/**
 * Judges how near VRAM, memory and disk are to their ends. A level rises when it has held for two seconds and falls when it has
 * been well below for fifteen, so that neither a server that keeps 90 % for itself by design nor one that breathes around a threshold
 * is told again and again. Not told: that all is normal at the start.
 */
export class PressureWatch {
  readonly #options: PressureOptions;
  readonly #tracks = new Map<string, Track>();

  constructor(options: PressureOptions) {
    this.#options = options;
  }

  /**
   * The level of a GPU's VRAM by a sample of it. Where its memory is the host's (`unified`), or the driver tells none, there is
   * nothing to judge here: it is the host's level.
   */
  gpu(sample: GpuTelemetry, { unified = false }: { unified?: boolean } = {}): PressureLevel | undefined {
    if (unified) return this.level("host_memory");
    const { uuid, vramUsedMiB, vramTotalMiB, vramReservedMiB = 0 } = sample;
    if (vramUsedMiB === undefined || vramTotalMiB === undefined) return undefined;
    return this.#judge({ resource: "vram", gpu: uuid, ...shareOf(vramUsedMiB, vramTotalMiB - vramReservedMiB) });
  }

  /** The level of the machine's memory; `unified` where a GPU works in it too. */
  host(host: HostTelemetry, { unified = false }: { unified?: boolean } = {}): PressureLevel | undefined {
    const { memoryUsedMiB, memoryTotalMiB, memoryPressureSome10: percent } = host;
    if (memoryUsedMiB === undefined || memoryTotalMiB === undefined) return undefined;
    const from = this.#options.thresholds.hostMemory.stallPercent;
    return this.#judge({
      resource: "host_memory",
      ...shareOf(memoryUsedMiB, memoryTotalMiB),
      ...(percent !== undefined && { stall: { percent, from } }),
      ...(unified && { unified: true }),
    });
  }

  /** The level of the disk where images and layers lie. */
  disk(freeMiB: number, totalMiB: number): PressureLevel {
    return this.#judge({ resource: "disk", ...shareOf(totalMiB - freeMiB, totalMiB) });
  }

  /** The level last told of, or normal. */
  level(resource: PressureEvent["resource"], gpu?: string): PressureLevel {
    return this.#tracks.get(keyOf({ resource, gpu }))?.level ?? "normal";
  }

  /** The GPU is gone; what is learned of it later begins at normal. */
  forget(gpu: string): void {
    this.#tracks.delete(keyOf({ resource: "vram", gpu }));
  }

  #judge(reading: Reading): PressureLevel {
    const key = keyOf(reading);
    const track = this.#tracks.get(key) ?? { level: "normal", next: undefined };
    this.#tracks.set(key, track);
    const limits = this.#limitsOf(reading);
    const level = levelOf(reading, limits, track.level);
    if (level === track.level) {
      track.next = undefined;
      return track.level;
    }
    const now = this.#options.steady();
    const isRise = ORDER.indexOf(level) > ORDER.indexOf(track.level);
    // Still on the way in the same direction: what counts is how long, not how far.
    const wasRise = track.next !== undefined && ORDER.indexOf(track.next.level) > ORDER.indexOf(track.level);
    const since = track.next !== undefined && wasRise === isRise ? track.next.since : now;
    track.next = { level, since };
    if (now - since < (isRise ? RISE_AFTER_MS : FALL_AFTER_MS)) return track.level;
    try {
      this.#options.emit(eventOf(reading, level, isRise ? level : track.level, limits));
    } catch {
      return track.level;
    }
    track.level = level;
    track.next = undefined;
    return level;
  }

  #limitsOf({ resource }: Reading): Limits {
    const { vram, hostMemory, disk } = this.#options.thresholds;
    return { vram, host_memory: hostMemory, disk }[resource];
  }
}

/** The level a reading speaks for, to one who is at `current`: leaving a level takes more than entering it. */
function levelOf(reading: Reading, limits: Limits, current: PressureLevel): PressureLevel {
  const { usedPercent, freeMiB, stall } = reading;
  const slack = (level: PressureLevel) => (ORDER.indexOf(current) >= ORDER.indexOf(level) ? HYSTERESIS_POINTS : 0);
  const isBeyond = (level: PressureLevel, percent: number, floorMiB: number) =>
    usedPercent >= percent - slack(level) && freeMiB <= floorMiB * (slack(level) > 0 ? 1.25 : 1);
  if (isBeyond("critical", limits.criticalPercent, limits.freeMiB / 4)) return "critical";
  if (isBeyond("elevated", limits.elevatedPercent, limits.freeMiB)) return "elevated";
  // Tasks that wait for memory are pressure however much of it is free: a cgroup, or a slow swap.
  if (stall !== undefined && stall.percent >= (slack("elevated") > 0 ? stall.from / 2 : stall.from)) return "elevated";
  return "normal";
}

function eventOf(reading: Reading, level: PressureLevel, threshold: PressureLevel, limits: Limits): PressureEvent {
  const { resource, gpu, usedPercent, freeMiB, unified } = reading;
  return {
    kind: "pressure",
    resource,
    ...(gpu !== undefined && { gpu }),
    level,
    valuePercent: Math.round(usedPercent * 10) / 10,
    thresholdPercent: threshold === "critical" ? limits.criticalPercent : limits.elevatedPercent,
    freeMiB,
    ...(unified === true && { unified }),
  };
}

function shareOf(usedMiB: number, usableMiB: number): Pick<Reading, "usedPercent" | "freeMiB"> {
  const usable = Math.max(1, usableMiB);
  // A driver counts its own reserve into "used" on some boards: never above the whole.
  const used = Math.min(usable, Math.max(0, usedMiB));
  return { usedPercent: (used / usable) * 100, freeMiB: Math.round(usable - used) };
}

function keyOf({ resource, gpu }: { resource: string; gpu?: string | undefined }): string {
  return `${resource}/${gpu ?? ""}`;
}
