import { setTimeout as sleep } from "node:timers/promises";
import type { Identity } from "../link/identity.ts";
import type { Link } from "../link/link.ts";
import type { LinkStatus } from "../link/needs.ts";
import type { RotatedKey } from "../local/server.ts";
import type { Problem } from "../protocol/agent-frames.ts";
import { GpunodeError } from "../protocol/errors.ts";

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

/** So long it is remembered to the owner that somebody else used the key. */
const TOLD_FOR_MS = 3_600_000;

/** What is to be said of this node's key: that a new one waits, or that somebody else uses it as well. */
export function keyProblems({ next, nodeId }: Identity, link: LinkStatus | undefined, now: number): Problem[] {
  const problems: Problem[] = [];
  if (next !== undefined) {
    const message = `a new key waits to take the place of ${nodeId}: the coordinator has to be reached for that`;
    problems.push({ code: "key_rotation_pending", message });
  }
  const replacedAt = link?.replacedAt;
  if (replacedAt !== undefined && now - replacedAt < TOLD_FOR_MS) {
    const message = `another agent came to the coordinator with this node's key (${new Date(replacedAt).toISOString()}): if it is no copy of yours, the key is stolen, and "gpunode enroll --rotate" gives this node a new one`;
    problems.push({ code: "key_used_twice", message });
  }
  return problems;
}
