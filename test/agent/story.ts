import { type HeldEvent, heldEvents } from "../faults/truth.ts";
import { patiently, type Site } from "./rig.ts";

export const sh = (script: string) => ["sh", "-c", script];
/** Runs until it is told to end, and then ends at once. */
export const stays = sh("trap 'exit 0' TERM; while :; do sleep 0.1; done");

/** What the coordinator was told of preemptions and of what the node lends, in a word or two each. */
export async function story(site: Site): Promise<string[]> {
  const words = ({ kind, ...event }: HeldEvent): string[] => {
    const { phase, cause, state, reason, gpus } = event as Record<string, unknown>;
    if (kind === "preemption") return [`${phase} ${cause}`];
    const which = Array.isArray(gpus) ? ` ${gpus.length}` : "";
    return kind === "node" && (state === "draining" || state === "available") ? [`${state} ${reason}${which}`] : [];
  };
  return (await heldEvents(site.apiUrl)).flatMap(words);
}

/** Waits until that, and no more, was told. */
export async function tells(site: Site, ...wanted: string[]): Promise<void> {
  let told: string[] = [];
  try {
    await patiently(async () => {
      told = await story(site);
      return JSON.stringify(told) === JSON.stringify(wanted) ? true : undefined;
    });
  } catch (error) {
    throw new Error(`told was: ${told.join(", ")}`, { cause: error });
  }
}
