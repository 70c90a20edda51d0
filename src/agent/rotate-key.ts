import { setTimeout as sleep } from "node:timers/promises";
import type { Identity } from "../link/identity.ts";
import type { Link } from "../link/link.ts";
import type { RotatedKey } from "../local/server.ts";
import { GpunodeError } from "../protocol/errors.ts";
import type { Problem } from "../protocol/frames.ts";

/** A coordinator that is there answers within a moment; the one who asked shall not wait for one that is not. */
const ANSWER_WITHIN_MS = 7000;

/**
 * Gives this node a new key: at once where there is no coordinator, else when that agrees. Throws `unsupported` where it does
 * not: the node keeps the key it has.
 */
export async function rotateKey(identity: Identity, link: Link | undefined): Promise<RotatedKey> {
  const replaces = identity.nodeId;
  if (link === undefined) {
    identity.prepareNext();
    identity.adoptNext();
    return { state: "done", nodeId: identity.nodeId, replaces };
  }
  const noLonger = new AbortController();
  const late = sleep(ANSWER_WITHIN_MS, undefined, { signal: noLonger.signal }).catch(() => undefined);
  const end = await Promise.race([link.rotateKey(), late]);
  noLonger.abort();
  if (end === undefined) return { state: "pending", nodeId: replaces };
  if (!end.isDone) throw new GpunodeError("unsupported", end.message);
  return { state: "done", nodeId: end.nodeId, replaces: end.replaces };
}

/** Says that a new key waits, as long as one does. */
export function keyProblems({ next, nodeId }: Identity): Problem[] {
  if (next === undefined) return [];
  const message = `a new key waits to take the place of ${nodeId}: the coordinator has to be reached for that`;
  return [{ code: "key_rotation_pending", message }];
}
