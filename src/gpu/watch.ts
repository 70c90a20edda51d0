import { setTimeout as sleep } from "node:timers/promises";
import { type Inventory, readInventory } from "./nvidia/inventory.ts";
import type { Smi } from "./nvidia/runner.ts";

/** A full read costs some 100 ms of nvidia-smi; what changes faster comes with the samples. */
const READ_EVERY_MS = 30_000;
/** While there is a problem it is asked more often, so that a repaired driver is seen soon. */
const RETRY_EVERY_MS = 5_000;
/** A daemon whose nvidia-smi hangs is up all the same after this long. */
const FIRST_READ_WAIT_MS = 5_000;

/** The GPUs as last read, kept fresh. */
export interface GpuWatch extends AsyncDisposable {
  readonly inventory: Inventory;
}

/**
 * Reads the GPUs and goes on reading them; `onChange` is called when a read differs from the one before. Resolves after the
 * first read, or after 5 s without one. Never rejects: what goes wrong is in `inventory.problems`.
 */
export async function watchGpus(smi: Smi, onChange: () => void): Promise<GpuWatch> {
  const stop = new AbortController();
  const { signal } = stop;
  let inventory: Inventory = {
    gpus: [],
    problems: [{ code: "timeout", message: `${smi.path} has not answered yet; it is asked again` }],
    processes: new Map(),
  };
  const first = Promise.withResolvers<void>();
  const loop = async () => {
    while (!signal.aborted) {
      const read = await readInventory(smi, { signal });
      if (signal.aborted) break;
      const changed =
        JSON.stringify([read.gpus, read.problems]) !== JSON.stringify([inventory.gpus, inventory.problems]);
      inventory = read;
      first.resolve();
      if (changed) onChange();
      const pause = read.problems.length > 0 ? RETRY_EVERY_MS : READ_EVERY_MS;
      await sleep(pause, undefined, { signal }).catch(() => undefined);
    }
  };
  const running = loop();
  const patience = new AbortController();
  const waited = sleep(FIRST_READ_WAIT_MS, undefined, { signal: patience.signal }).catch(() => undefined);
  await Promise.race([first.promise, waited]);
  patience.abort();
  return {
    get inventory() {
      return inventory;
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}
