import type { Advertise } from "../protocol/agent-frames.ts";
import type { Session } from "./session.ts";

/** What nodes have refused. Such a node is not asked again until it advertises anew. */
export class Refusals {
  /** workload → node → what it said, and the advertisement it was picked by. */
  readonly #known = new Map<string, Map<string, { advertisement: Advertise; message: string }>>();

  note(workload: string, { nodeId, advertisement }: Session, message: string): void {
    if (advertisement === undefined) return;
    const byNode = this.#known.get(workload) ?? new Map();
    this.#known.set(workload, byNode.set(nodeId, { advertisement, message }));
  }

  /** What the node said; undefined where it said nothing since it advertised last. */
  of(workload: string, { nodeId, advertisement }: Session): string | undefined {
    const refusal = this.#known.get(workload)?.get(nodeId);
    return refusal !== undefined && refusal.advertisement === advertisement ? refusal.message : undefined;
  }

  forget(workload: string): void {
    this.#known.delete(workload);
  }
}
