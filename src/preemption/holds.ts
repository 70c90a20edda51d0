import type { EventBody, PreemptionCause } from "../protocol/event.ts";
import type { KnownClaim } from "./effect.ts";

/** What is kept from being lent: by whom the whole node is, and which boards are besides. */
export interface Shared {
  node: readonly Held[];
  gpus: ReadonlyMap<string, Held>;
}

interface Held {
  cause: PreemptionCause;
  message: string;
}

type NodeEvent = Extract<EventBody, { kind: "node" }>;

export function heldNow(claims: readonly KnownClaim[]): Shared {
  return {
    node: claims.filter(({ gpus }) => gpus === undefined).map(({ cause, message }) => ({ cause, message })),
    gpus: new Map(claims.flatMap(({ gpus, cause, message }) => (gpus ?? []).map((uuid) => [uuid, { cause, message }]))),
  };
}

/**
 * The events that tell a change of what is lent: of the node as a whole, and of single GPUs. One that is held by somebody else now
 * tells nothing: it is lent as little as before. Pure.
 */
export function nodeEvents(before: Shared, next: Shared): NodeEvent[] {
  const events: NodeEvent[] = [];
  const [was, is] = [before.node[0], next.node[0]];
  if (was === undefined && is !== undefined) events.push(event("draining", is));
  if (was !== undefined && is === undefined) events.push(event("available", was));
  events.push(...changed(before.gpus, next.gpus, "draining"), ...changed(next.gpus, before.gpus, "available"));
  return events;
}

/** GPUs that are in `next` and not in `before`, one event for each cause. */
function changed(
  before: ReadonlyMap<string, Held>,
  next: ReadonlyMap<string, Held>,
  state: "draining" | "available",
): NodeEvent[] {
  const fresh = [...next].filter(([uuid]) => !before.has(uuid));
  const groups = Map.groupBy(fresh, ([, { cause, message }]) => `${cause} ${message}`);
  return [...groups.values()].flatMap((group) => {
    const [first] = group;
    return first === undefined ? [] : [{ ...event(state, first[1]), gpus: group.map(([uuid]) => uuid) }];
  });
}

function event(state: "draining" | "available", { cause, message }: Held): NodeEvent {
  return { kind: "node", state, reason: cause, ...(state === "draining" && { message }) };
}
