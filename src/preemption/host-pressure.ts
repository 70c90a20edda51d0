import type { PressureEvent } from "../protocol/event.ts";
import type { Claim, Raise } from "./claim.ts";

/** A workload that has not ended, as far as it matters to who has to go. */
export interface Candidate {
  id: string;
  preemptible: boolean;
  priority: number;
  /** By the wall clock, milliseconds since the epoch. */
  acceptedAt: number;
  /** Already told to end, by whomever. */
  isEnding: boolean;
}

export interface HostPressureOptions {
  steady(): number;
  /** The workloads that have not ended. */
  live(): readonly Candidate[];
  raise: Raise;
  /** Ends one workload, with notice. */
  preempt(id: string, message: string): void;
}

export interface HostPressure extends Disposable {
  /** A level of pressure has changed. */
  pressure(event: PressureEvent): void;
  /** Workloads have begun, are ending, or have ended. */
  workloadsChanged(): void;
}

/** What an ended workload held is given back, and the pressure judged anew (it falls after 15 s), before another has to go. */
const NEXT_AFTER_MS = 30_000;

const RESOURCE = { host_memory: "memory", disk: "disk" } as const;

/**
 * Who has to go first: one that may be preempted before one that may not, the lower priority, then the younger. undefined where nothing is
 * left that is not ending already.
 */
export function nextVictim(live: readonly Candidate[]): Candidate | undefined {
  const rank = ({ preemptible, priority, acceptedAt }: Candidate) => [Number(!preemptible), priority, -acceptedAt];
  return live
    .filter(({ isEnding }) => !isEnding)
    .sort((a, b) => {
      const [ranksOfA, ranksOfB] = [rank(a), rank(b)];
      const differing = ranksOfA.findIndex((value, index) => value !== ranksOfB[index]);
      return (ranksOfA[differing] ?? 0) - (ranksOfB[differing] ?? 0);
    })[0];
}

/**
 * While memory or disk of the machine is critical nothing new is accepted, and workloads end one after the other: the next one is named
 * when the last one named has ended and it is still critical 30 s later. Levels come with their own dwell and hysteresis, so one that is
 * told counts at once.
 */
export function relieveHostPressure({ steady, live, raise, preempt }: HostPressureOptions): HostPressure {
  const critical = new Map<PressureEvent["resource"], Claim>();
  let victim: string | undefined;
  /** The next one is named no sooner; by the steady clock. */
  let notBefore = Number.NEGATIVE_INFINITY;
  let timer: NodeJS.Timeout | undefined;

  const step = (): void => {
    clearTimeout(timer);
    const workloads = live();
    if (victim !== undefined && !workloads.some(({ id }) => id === victim)) {
      victim = undefined;
      notBefore = steady() + NEXT_AFTER_MS;
    }
    const [claim] = critical.values();
    if (claim === undefined || victim !== undefined) return;
    const waitMs = notBefore - steady();
    if (waitMs > 0) {
      timer = setTimeout(step, waitMs);
      timer.unref();
      return;
    }
    const next = nextVictim(workloads);
    if (next === undefined) return;
    // Known before it is told to end: that calls back here.
    victim = next.id;
    preempt(next.id, claim.message);
  };

  return {
    pressure(event) {
      const { resource, level } = event;
      if (resource === "vram") return;
      const wasCritical = critical.delete(resource);
      if (level === "critical")
        critical.set(resource, { work: "leave", message: messageOf(event, RESOURCE[resource]) });
      else if (!wasCritical) return;
      raise([...critical.values()]);
      step();
    },
    workloadsChanged: step,
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}

function messageOf({ valuePercent, freeMiB }: PressureEvent, what: string): string {
  const free = freeMiB === undefined ? "" : `, ${freeMiB} MiB free`;
  return `the ${what} of this machine is nearly used up: ${valuePercent} %${free}`;
}
