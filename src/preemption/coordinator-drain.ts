import type { Raise } from "./claim.ts";

/** Where a drain by the coordinator is remembered over restarts. */
export interface DrainMemory {
  get(): boolean;
  /** Throws where the disk refuses. */
  set(isDraining: boolean): void;
}

/** The coordinator's `drain` and `resume`: its own word alone, which lifts nothing that the owner or anybody else keeps. */
export interface CoordinatorDrain {
  drain(options: { graceSeconds?: number }): void;
  resume(): void;
}

/** Takes up what was remembered, and raises it at once. */
export function createCoordinatorDrain(memory: DrainMemory, raise: Raise, steady: () => number): CoordinatorDrain {
  const tell = (isDraining: boolean, deadlineAt?: number) =>
    raise(
      isDraining
        ? [
            {
              message: "drained by the coordinator",
              work: "stop",
              ...(deadlineAt !== undefined && { deadlineAt }),
            },
          ]
        : [],
    );
  tell(memory.get());
  return {
    drain({ graceSeconds }) {
      memory.set(true);
      tell(true, graceSeconds === undefined ? undefined : steady() + graceSeconds * 1000);
    },
    resume() {
      memory.set(false);
      tell(false);
    },
  };
}
