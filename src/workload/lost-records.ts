import { type Engine, type Journal, LABEL_GENERATION, LABEL_WORKLOAD, type Log } from "./needs.ts";
import { eventOf, type Lost, lostRecord, recordKey, type WorkloadRecord } from "./record.ts";

export interface LostDoors {
  engine: Engine;
  journal: Journal;
  log: Log;
  nodeId: string;
  /** The wall clock, for what is told. */
  now(): number;
  /** A record of this key is there. */
  isKnown(key: string): boolean;
  /** Takes up a record that says `lost`, and sees its container off. */
  begin(record: WorkloadRecord): void;
}

/** Tells as lost what a row on disk was about that cannot be read; the row itself goes. Throws where the disk refuses. */
export function tellUnreadable(key: string, doors: LostDoors): void {
  const [, id = "", generation] = /^(.+)#(\d+)$/.exec(key) ?? [];
  const message = "its record on the node's disk cannot be read";
  tellLost({ id, generation: Number(generation) }, message, doors, key);
}

/**
 * Ends what containers with this node's label run and no record knows: the record was lost with the disk. Does nothing where the
 * engine is away. Never rejects.
 */
export async function removeStrays(doors: LostDoors): Promise<void> {
  const { engine, nodeId, log } = doors;
  try {
    for (const container of await engine.list(nodeId)) {
      const id = container.labels[LABEL_WORKLOAD] ?? "";
      const generation = Number(container.labels[LABEL_GENERATION]);
      if (doors.isKnown(recordKey({ id, generation }))) continue;
      log.warn(
        { container: container.name, workload: id },
        "removing a container of ours that no record knows: state_dir was lost, or another one is used now",
      );
      const message = "the node has lost its record of this workload; its container is removed";
      if (!tellLost({ id, generation, containerId: container.id, gpus: container.gpus }, message, doors))
        await engine.remove(container.id);
    }
  } catch (error) {
    log.debug({ err: error }, "could not look for stray containers");
  }
}

/** Tells a generation as lost and sees its container off; false where it can be none of ours. `key` is an old row that goes. */
function tellLost(of: Lost, message: string, { journal, now, begin }: LostDoors, key?: string): boolean {
  const record = lostRecord(of, { now: now(), message });
  if (record === undefined) {
    if (key !== undefined) journal.commit({ put: [], remove: [key], events: [] });
    return false;
  }
  journal.commit({
    put: [{ key: recordKey(record), body: record }],
    remove: key === undefined || key === recordKey(record) ? [] : [key],
    events: [eventOf(record)],
  });
  begin(record);
  return true;
}
