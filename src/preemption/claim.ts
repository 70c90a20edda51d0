import type { PreemptionCause } from "../protocol/event.ts";

/**
 * Somebody wants GPUs back, or keeps them. A source (the owner, the schedule, the cloud …) tells the complete set of its claims whenever
 * that changes; the GPUs of a claim are lent to nobody until it is gone from the set.
 */
export interface Claim {
  /** UUIDs of whole boards; their MIG instances are meant with them. Absent: the whole node, work without a GPU included. */
  gpus?: readonly string[];
  /** For owner, coordinator and tenant: who wants what, in a sentence. */
  message: string;
  /**
   * What befalls the work that is there. `stop`: notice, and its end begins. `stop_in_time`: notice, and its end begins as late as its
   * checkpoint and grace allow before `deadlineAt`. `warn`: notice without an end. `leave`: nothing.
   */
  work: "stop" | "stop_in_time" | "warn" | "leave";
  /** The GPUs must be free by then: bounds checkpoint and grace together. By the steady clock, milliseconds. */
  deadlineAt?: number;
  /** Where the source has wanted it for longer than it has told so; RFC 3339. */
  since?: string;
  /** When the claim is expected to be lifted; told to owner and coordinator, nothing follows from it. By the steady clock. */
  untilAt?: number;
}

/** Sources whose claims are kept as sets. The others (`priority`, `gpu_fault`) name single workloads. */
export type ClaimSource = Extract<
  PreemptionCause,
  "owner" | "schedule" | "foreign_process" | "host_shutdown" | "cloud_notice" | "coordinator" | "host_pressure"
>;

/** Tells the complete set of a source's claims; what it told before is replaced. Never throws. */
export type Raise = (claims: readonly Claim[]) => void;
