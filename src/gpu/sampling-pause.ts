/** What can let go of the GPUs: the watch. */
export interface Pausable {
  /** Resolves when no nvidia-smi of ours runs any more; none is started until `resume`. */
  pause(): Promise<void>;
  resume(): void;
}

/** Where the owner's pause is remembered: over restarts of the agent, not over reboots. */
export interface PauseMemory {
  get(): string | undefined;
  set(bootId: string | undefined): void;
}

/** Who wants the GPUs let go of. */
export interface SamplingPause {
  /** On the owner's word, until `resume`. Resolves when the device is let go of. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Whether the node is emptied for maintenance; that pauses too, for as long as it is so. */
  setMaintenance(isEmptied: boolean): Promise<void>;
  readonly isPaused: boolean;
}

/**
 * While sampling is paused no process of ours has the device open, so that the driver can be unloaded, upgraded and loaded again. A
 * reboot ends the owner's pause: the driver is new then, or nothing came of it.
 */
export function createSamplingPause(watch: Pausable, memory: PauseMemory, bootId: string): SamplingPause {
  let byOwner = memory.get() === bootId;
  let byMaintenance = false;
  let done: Promise<void> = byOwner ? watch.pause() : Promise.resolve();
  let isPaused = byOwner;
  const settle = (): Promise<void> => {
    const wanted = byOwner || byMaintenance;
    if (wanted !== isPaused) {
      isPaused = wanted;
      done = done.then(() => (wanted ? watch.pause() : watch.resume()));
    }
    return done;
  };
  const setOwner = (paused: boolean): Promise<void> => {
    memory.set(paused ? bootId : undefined);
    byOwner = paused;
    return settle();
  };
  return {
    pause: () => setOwner(true),
    resume: () => setOwner(false),
    setMaintenance(isEmptied) {
      byMaintenance = isEmptied;
      return settle();
    },
    get isPaused() {
      return isPaused;
    },
  };
}
