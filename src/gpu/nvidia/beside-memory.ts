import type { BesideMemory } from "./inventory.ts";

/** One text that outlives the daemon. */
export interface KeptText {
  get(): string | undefined;
  set(text: string): void;
}

/**
 * What nvidia-smi was asked besides its document (compute capabilities, topology), from the daemon before this one: a daemon that is
 * restarted starts one nvidia-smi instead of three. It holds for one boot of the machine and, as `BesideMemory`, for the same driver
 * and GPUs. Empty where nothing usable is kept.
 */
export function recallBeside(kept: KeptText, bootId: string): BesideMemory {
  try {
    const { boot, of, capabilities, topology } = JSON.parse(kept.get() ?? "{}") as Record<string, unknown>;
    if (bootId === "" || boot !== bootId || typeof of !== "string") return {};
    const pairs = Object.entries(typeof capabilities === "object" && capabilities !== null ? capabilities : {});
    const texts = pairs.filter((pair): pair is [string, string] => typeof pair[1] === "string");
    return {
      of,
      ...(texts.length > 0 && { capabilities: new Map(texts) }),
      ...(typeof topology === "string" && topology !== "" && { topology }),
    };
  } catch {
    return {};
  }
}

/** Keeps it for the next daemon, where that is news. */
export function keepBeside(kept: KeptText, bootId: string, { of, capabilities, topology }: BesideMemory): void {
  if (of === undefined) return;
  const text = JSON.stringify({ boot: bootId, of, capabilities: Object.fromEntries(capabilities ?? []), topology });
  if (text !== kept.get()) kept.set(text);
}
