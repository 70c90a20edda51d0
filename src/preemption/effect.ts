import type { Gpu } from "../protocol/gpu.ts";
import type { Claim, ClaimSource } from "./claim.ts";

/** A claim with its source, and since when that has it (RFC 3339). */
export interface KnownClaim extends Claim {
  cause: ClaimSource;
  since: string;
}

/** What all claims together mean for one workload. */
export type Effect =
  | { work: "leave" }
  | { work: Exclude<Claim["work"], "leave">; cause: ClaimSource; message: string; deadlineAt?: number };

/** The gravest comes first. */
const GRAVITY = ["stop", "stop_in_time", "warn"] as const;

/**
 * Judges the claims on work that holds GPUs of `boards`. Of several that mean the same, the one with the earliest deadline speaks; a work
 * that ends now ends by the earliest deadline of all. Pure.
 */
export function effectOf(claims: readonly KnownClaim[], boards: ReadonlySet<string>): Effect {
  const hitting = claims.filter(({ gpus }) => gpus === undefined || gpus.some((uuid) => boards.has(uuid)));
  for (const work of GRAVITY) {
    const [first] = hitting
      .filter((claim) => claim.work === work)
      .sort((a, b) => (a.deadlineAt ?? Number.MAX_VALUE) - (b.deadlineAt ?? Number.MAX_VALUE));
    if (first === undefined) continue;
    const { cause, message } = first;
    const deadlineAt = work === "warn" ? undefined : Math.min(...hitting.map((claim) => claim.deadlineAt ?? Infinity));
    const isBound = deadlineAt !== undefined && deadlineAt !== Infinity;
    return { work, cause, message, ...(isBound && { deadlineAt }) };
  }
  return { work: "leave" };
}

/** The boards that GPUs or MIG instances belong to. */
export function boardsUnder(uuids: readonly string[], boards: readonly Gpu[]): ReadonlySet<string> {
  const found = new Set(uuids);
  for (const { uuid, mig } of boards) {
    if (mig?.instances.some((instance) => uuids.includes(instance.uuid)) === true) found.add(uuid);
  }
  return found;
}
