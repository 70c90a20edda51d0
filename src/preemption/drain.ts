import type { Journal } from "../workload/needs.ts";
import { isTerminal } from "../workload/state.ts";
import type { Supervisor } from "../workload/supervisor.ts";

/** Where the drain is remembered over restarts and reboots. */
export interface DrainMemory {
  get(): boolean;
  set(draining: boolean): void;
}

/**
 * Draining: the node accepts nothing new and gives back what runs, until it is lifted. Whoever asked, owner or
 * coordinator, it is kept over restarts and reboots.
 */
export interface Drain {
  readonly draining: boolean;
  /** Preempts all that runs, each with notice. Draining again only makes the ends come sooner. */
  start(why: { cause: "owner" | "coordinator"; graceSeconds?: number }): void;
  lift(): void;
}

export function createDrain(supervisor: Supervisor, journal: Journal, memory: DrainMemory): Drain {
  supervisor.draining = memory.get();
  const tell = (state: "draining" | "available", reason?: string) =>
    journal.commit({ put: [], remove: [], events: [{ kind: "node", state, ...(reason !== undefined && { reason }) }] });
  return {
    get draining() {
      return supervisor.draining;
    },
    start({ cause, graceSeconds }) {
      if (!supervisor.draining) {
        memory.set(true);
        supervisor.draining = true;
        tell("draining", cause);
      }
      const live = supervisor.records().filter(({ state }) => !isTerminal(state));
      supervisor.preempt(
        live.map(({ id }) => id),
        { cause, message: "the node is draining", ...(graceSeconds !== undefined && { graceSeconds }) },
      );
    },
    lift() {
      if (!supervisor.draining) return;
      memory.set(false);
      supervisor.draining = false;
      tell("available");
    },
  };
}
