import type { EngineWatch } from "../engine/watch.ts";
import type { EventBody } from "../protocol/event.ts";
import type { Supervisor } from "../workload/supervisor.ts";
import type { NodeIsolation } from "./isolation.ts";
import type { NodePreemption } from "./preemption.ts";

export interface EnginePresenceDoors {
  engine: Pick<EngineWatch, "info">;
  supervisor: Pick<Supervisor, "removeStrays">;
  preemption: Pick<NodePreemption, "holdsNode">;
  isolation: Pick<NodeIsolation, "refresh"> | undefined;
  tell(events: EventBody[]): void;
  changed(): void;
}

/** Returns what is to be called when the watch of the engine has seen something new: where it went or came back, that is an event. */
export function engineSeen(doors: EnginePresenceDoors): () => void {
  const { engine, supervisor, preemption, isolation, tell, changed } = doors;
  let wasThere = engine.info.available;
  return () => {
    const isThere = engine.info.available;
    if (isThere !== wasThere) {
      const reason = isThere ? "engine_available" : "engine_unavailable";
      tell([{ kind: "node", state: preemption.holdsNode ? "draining" : "available", reason }]);
      if (isThere) {
        isolation?.refresh();
        void supervisor.removeStrays();
      }
    }
    wasThere = isThere;
    changed();
  };
}
