import type { Inventory } from "./nvidia/inventory.ts";
import type { ShapeSource, StreamShape } from "./nvidia/sampler.ts";

/** What a sample stream goes by, as the reads tell it. */
export interface Shapes extends ShapeSource {
  /** A read that succeeded; undefined where nothing may be sampled. */
  set(read: Inventory | undefined): void;
}

/** Another driver, other GPUs or other MIG instances make another generation, and so does a pause. */
export function createShapes(): Shapes {
  const listeners = new Set<() => void>();
  let key: string | undefined;
  let generation = 0;
  let shape: StreamShape | undefined;
  return {
    get shape() {
      return shape;
    },
    onShape(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    set(read) {
      const next = read === undefined ? undefined : keyOf(read);
      if (next !== key) generation += 1;
      key = next;
      shape =
        read === undefined
          ? undefined
          : {
              generation,
              rows: read.rows,
              ...(read.driverVersion !== undefined && { driverVersion: read.driverVersion }),
            };
      for (const listener of [...listeners]) listener();
    },
  };
}

function keyOf({ driverVersion, rows, gpus }: Inventory): string {
  const parts = gpus.map(({ index, uuid, mig }) => [index, uuid, mig?.enabled, mig?.instances.map((of) => of.uuid)]);
  return JSON.stringify([driverVersion, rows, parts]);
}
