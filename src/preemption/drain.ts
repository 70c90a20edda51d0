import type { Journal } from "../workload/needs.ts";
import { isTerminal } from "../workload/state.ts";
import type { Supervisor } from "../workload/supervisor.ts";

/** `maintenance`: draining, and with the last workload gone the GPUs are let go of, so that their driver can be changed. */
export type DrainKind = "drain" | "maintenance";

/** Where the drain is remembered over restarts and reboots. */
export interface DrainMemory {
  get(): DrainKind | undefined;
  set(kind: DrainKind | undefined): void;
}

/**
 * Draining: the node accepts nothing new and gives back what runs, until it is lifted. Whoever asked, owner or
 * coordinator, it is kept over restarts and reboots.
 */
export interface Drain {
  readonly draining: boolean;
  /** Draining for maintenance, and nothing runs any more. */
  readonly isEmptied: boolean;
  /** Preempts all that runs, each with notice. Draining again only makes the ends come sooner. */
  start(why: { cause: "owner" | "coordinator"; kind?: DrainKind; graceSeconds?: number }): void;
  lift(): void;
}

export function createDrain(supervisor: Supervisor, journal: Journal, memory: DrainMemory): Drain {
  let kind = memory.get();
  supervisor.draining = kind !== undefined;
  const tell = (state: "draining" | "available", reason?: string) =>
    journal.commit({ put: [], remove: [], events: [{ kind: "node", state, ...(reason !== undefined && { reason }) }] });
  const become = (next: DrainKind | undefined) => {
    memory.set(next);
    kind = next;
    supervisor.draining = next !== undefined;
  };
  return {
    get draining() {
      return kind !== undefined;
    },
    get isEmptied() {
      return kind === "maintenance" && supervisor.runners().every(({ isOver }) => isOver);
    },
    start({ cause, kind: wanted = "drain", graceSeconds }) {
      if (kind === undefined) {
        become(wanted);
        tell("draining", cause);
      } else if (wanted === "maintenance") become(wanted);
      const live = supervisor.records().filter(({ state }) => !isTerminal(state));
      const message = wanted === "maintenance" ? "the node is drained for maintenance" : "the node is draining";
      supervisor.preempt(
        live.map(({ id }) => id),
        { cause, message, ...(graceSeconds !== undefined && { graceSeconds }) },
      );
    },
    lift() {
      if (kind === undefined) return;
      become(undefined);
      tell("available");
    },
  };
}
