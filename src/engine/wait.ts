import { setTimeout as sleep } from "node:timers/promises";
import type { ContainerState } from "../workload/needs.ts";
import { isUp } from "./container.ts";
import type { ContainerEvents } from "./events.ts";

/** After the loss of an event stream the next one is opened no sooner: an engine that drops each at once is not asked in a spin. */
const REOPEN_MS = 100;

export interface WaitDoors {
  events: ContainerEvents;
  inspect(id: string, signal?: AbortSignal): Promise<ContainerState | undefined>;
}

/**
 * Settles when the container's processes have ended, with its last state; undefined where it is gone. First the watch,
 * then the look: an end between the two is not missed. Throws `engine_unavailable` as soon as the engine refuses a
 * new event stream or an inspect, and the signal's reason.
 */
export async function waitUntilDown(
  id: string,
  { events, inspect }: WaitDoors,
  signal: AbortSignal,
): Promise<ContainerState | undefined> {
  for (;;) {
    using watch = await events.watch(id, signal);
    do {
      const state = await inspect(id, signal);
      if (state === undefined || !isUp(state)) return state;
    } while ((await watch.next()) === "look");
    await sleep(REOPEN_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}
