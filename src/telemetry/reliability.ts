import * as z from "zod";
import type { Reliability } from "../protocol/agent-frames.ts";
import type { PreemptionCause } from "../protocol/event.ts";
import type { WorkloadState } from "../protocol/workload.ts";
import { countNotice, DAY_MS, DAYS, Day, type End, emptyDay, figuresOf } from "./reliability-days.ts";

/** A sign of life is written so often while the agent runs. */
const ALIVE_EVERY_MS = 60_000;
/** Where nothing was heard for longer than this, nobody was there: the machine slept, or the process was held. */
const MOST_BETWEEN_MS = 3 * ALIVE_EVERY_MS;
/** What is told grows old by so much before it is told again only because time has passed. */
const TELL_AGAIN_MS = 3_600_000;

/** Reasons of `failed` that are the machine's: somebody took the container away, or what had run once could not be started again. */
const OWN_FAILURES: ReadonlySet<string> = new Set(["container_gone", "start_failed", "engine_unavailable", "internal"]);

/** What lies in the node's database: one setting, a few KiB in life and below 100 KiB whatever happens. */
const Memory = z
  .object({
    /** The record's own clock, in milliseconds; never beyond what a date can be. */
    at: z.int().max(8.64e15),
    /** Where it began, by that clock. */
    since: z.int(),
    /** The last sign of life: in which boot, how long that had lasted, and what the wall clock said. */
    seen: z.object({ bootId: z.string(), uptimeMs: z.number(), wallMs: z.number() }),
    /** Oldest first, each day once. */
    days: z.array(Day).max(DAYS),
  })
  .refine(({ at, since, days }) => since <= at && days.every(({ day }) => day <= dayOf(at)), "it lies in the future");
type Memory = z.infer<typeof Memory>;

/** Of a workload that has ended, what the record wants to know. */
export interface EndedWork {
  state: WorkloadState;
  reason?: string;
  /** Absent where it never ran here. */
  startedAt?: number;
  stop?: {
    graceSeconds: number;
    /** When it was killed at the latest; `dueAt` the deadline it was told, `noticedAt` when. By the clock for deadlines, milliseconds. */
    killAt?: number;
    preemption?: { cause: PreemptionCause; noticedAt?: number; dueAt?: number };
  };
}

export interface ReliabilityDoors {
  /** `set` never throws; what could not be written is written with the next sign of life. */
  memory: { get(): string | undefined; set(text: string): void };
  /** The wall clock, milliseconds since the epoch. */
  now(): number;
  /** How long this boot has lasted, the time asleep included; milliseconds. */
  uptime(): number;
  /** Names this boot; "" where it has no name. */
  bootId: string;
  /** What is told has changed by the passing of time alone. */
  changed(): void;
  log: { warn(fields: object, message: string): void };
}

/**
 * What the node has proved to be like: how long an agent ran and how long none did, how work ended, and how much notice was given where
 * it was taken back. 30 days of it, in the node's database.
 *
 * The record has a clock of its own. It begins at the wall clock and moves by what has passed between two signs of life: within a
 * boot by the boot's own clock, from one boot to the next by the wall clock, and never backwards. So a wall clock that is set makes no time
 * up or down, and no day is in the future. Days are UTC days, except where the wall clock was set after the record began. After more than
 * 30 days without a sign of life (or a clock that says so) nothing of it counts any more, and it begins anew.
 */
export class ReliabilityRecord implements Disposable {
  readonly #doors: ReliabilityDoors;
  #memory: Memory | undefined;
  #timer: NodeJS.Timeout | undefined;
  #told: { at: number; figures: Reliability | undefined } | undefined;

  constructor(doors: ReliabilityDoors) {
    this.#doors = doors;
  }

  /** An agent has started: since the last sign of life of the one before, none ran. Signs of life follow until this is disposed. */
  started(): void {
    const memory = this.#pass(this.#read() ?? this.#anew(), "down");
    this.#save(memory);
    this.#tell(memory);
    this.#timer = setInterval(() => {
      if (this.alive()) this.#doors.changed();
    }, ALIVE_EVERY_MS);
    this.#timer.unref();
  }

  /** A sign of life; true where `told` has become something else by it. */
  alive(): boolean {
    if (this.#memory === undefined) return false;
    const memory = this.#pass(this.#memory, "up");
    this.#save(memory);
    if (this.told !== undefined && memory.at - (this.#told?.at ?? 0) < TELL_AGAIN_MS) return false;
    this.#tell(memory);
    return this.told !== undefined;
  }

  /** Call once for each workload that came to an end; one that never ran here is not counted. */
  ended(work: EndedWork): void {
    const end = endOf(work);
    if (end === undefined || this.#memory === undefined) return;
    const memory = this.#pass(this.#memory, "up");
    const day = dayAt(memory, memory.at);
    day.ends[end] += 1;
    const { stop } = work;
    if (end === "preempted" && stop?.preemption !== undefined) {
      countNotice(day, stop.preemption.cause, noticeMs(stop));
    }
    this.#save(memory);
    this.#tell(memory);
  }

  /** As of the last sign of life; undefined where nothing is known yet. */
  get figures(): Reliability | undefined {
    return this.#memory === undefined ? undefined : this.#figures(this.#memory);
  }

  /**
   * The same, for those who are told of each change: it changes when something was counted, and else once an hour. undefined where
   * nothing is known yet.
   */
  get told(): Reliability | undefined {
    return this.#told?.figures;
  }

  /** The last sign of life. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.alive();
  }

  #figures({ at, since, seen, days }: Memory): Reliability | undefined {
    const figures = figuresOf(days);
    if (figures === undefined) return undefined;
    const from = Math.max(since, (dayOf(at) - DAYS + 1) * DAY_MS);
    // Told by the wall clock, as far back as it is by the record's own.
    const wallMs = seen.wallMs - (at - from);
    return { since: new Date(Math.round(wallMs / 60_000) * 60_000).toISOString(), ...figures };
  }

  #tell(memory: Memory): void {
    this.#told = { at: memory.at, figures: this.#figures(memory) };
  }

  /** Counts the time since the last sign of life, and gives one. Returns the memory as it is then. */
  #pass(memory: Memory, as: "up" | "down"): Memory {
    const { seen } = memory;
    const { now, uptime, bootId } = this.#doors;
    const inBoot = seen.bootId === bootId && bootId !== "" ? uptime() - seen.uptimeMs : -1;
    const passed = Math.round(Math.max(0, inBoot >= 0 ? inBoot : now() - seen.wallMs));
    if (passed > DAYS * DAY_MS) {
      this.#memory = this.#anew();
      return this.#memory;
    }
    this.#memory = memory;
    memory.seen = this.#seen();
    const kind = passed > MOST_BETWEEN_MS ? "down" : as;
    const end = memory.at + passed;
    while (memory.at < end) {
      const part = Math.min(end, (dayOf(memory.at) + 1) * DAY_MS) - memory.at;
      dayAt(memory, memory.at)[kind === "up" ? "upMs" : "downMs"] += part;
      memory.at += part;
    }
    memory.days = memory.days.filter(({ day }) => day > dayOf(memory.at) - DAYS);
    return memory;
  }

  #read(): Memory | undefined {
    const text = this.#doors.memory.get();
    if (text === undefined) return undefined;
    try {
      return Memory.parse(JSON.parse(text));
    } catch (error) {
      this.#doors.log.warn(
        { err: error },
        "the record of this node's reliability could not be read; it begins anew, and what was counted before is gone. Look after the disk",
      );
      return undefined;
    }
  }

  #anew(): Memory {
    const at = Math.round(this.#doors.now());
    return { at, since: at, seen: this.#seen(), days: [] };
  }

  #seen(): Memory["seen"] {
    const { now, uptime, bootId } = this.#doors;
    return { bootId, uptimeMs: uptime(), wallMs: now() };
  }

  #save(memory: Memory): void {
    this.#doors.memory.set(JSON.stringify(memory));
  }
}

function dayOf(ms: number): number {
  return Math.floor(ms / DAY_MS);
}

function dayAt(memory: Memory, ms: number): Day {
  const number = dayOf(ms);
  const known = memory.days.find(({ day }) => day === number);
  if (known !== undefined) return known;
  const day = emptyDay(number);
  memory.days.push(day);
  return day;
}

/** How it counts; undefined where it says nothing about the node: it never ran here, or has not ended. */
function endOf({ state, reason = "", startedAt }: EndedWork): End | undefined {
  // The record of what is lost is lost: nobody can say any more that it never ran.
  if (state === "lost") return "lost";
  if (startedAt === undefined) return undefined;
  switch (state) {
    case "failed":
      return OWN_FAILURES.has(reason) ? "lost" : "failed";
    case "succeeded":
    case "stopped":
    case "preempted":
      return state;
    default:
      return undefined;
  }
}

/** From the notice to the moment it had to be over; where that is not known, the grace its stop signal would have left it. */
function noticeMs({ graceSeconds, killAt, preemption }: NonNullable<EndedWork["stop"]>): number {
  const { noticedAt, dueAt } = preemption ?? {};
  const overAt = Math.min(killAt ?? Number.POSITIVE_INFINITY, dueAt ?? Number.POSITIVE_INFINITY);
  return noticedAt === undefined || overAt === Number.POSITIVE_INFINITY ? graceSeconds * 1000 : overAt - noticedAt;
}
