import { setTimeout as sleep } from "node:timers/promises";
import type { LocalClient } from "../../local/client.ts";
import type { Snapshot } from "../../local/snapshot.ts";

/** What became of a node that dials its coordinator. */
export type Dialled =
  | { kind: "connected"; snapshot: Snapshot }
  /** The coordinator said no. */
  | { kind: "refused"; why: string }
  /** The daemon dials another address than it was told here. */
  | { kind: "elsewhere"; url: string }
  /** Not within the time; `why` is what kept it last. */
  | { kind: "late"; why: string };

const ASK_EVERY_MS = 300;
const NOT_RUNNING = "the daemon does not answer";

/** Asks the daemon until it is connected, or it is clear that it will not be. Throws only the signal's reason. */
export async function untilConnected(
  daemon: Pick<LocalClient, "status">,
  url: string,
  { withinMs, signal }: { withinMs: number; signal: AbortSignal },
): Promise<Dialled> {
  const deadline = performance.now() + withinMs;
  let why = NOT_RUNNING;
  for (;;) {
    signal.throwIfAborted();
    const snapshot = await daemon.status({ signal }).catch((error: unknown) => {
      why = error instanceof Error ? error.message : NOT_RUNNING;
      return undefined;
    });
    const dialled = snapshot === undefined ? undefined : judge(snapshot, url);
    if (dialled !== undefined) return dialled;
    if (snapshot !== undefined) why = snapshot.connection.lastError ?? "it has not dialled yet";
    if (performance.now() >= deadline) return { kind: "late", why };
    await sleep(ASK_EVERY_MS, undefined, { signal }).catch(() => undefined);
  }
}

function judge(snapshot: Snapshot, url: string): Dialled | undefined {
  const { state, url: dialled, refused, lastError = "" } = snapshot.connection;
  if (dialled === undefined) return { kind: "elsewhere", url: "no coordinator" };
  const [wanted, actual] = [new URL(url), new URL(dialled)];
  if (wanted.host !== actual.host || wanted.protocol !== actual.protocol) return { kind: "elsewhere", url: dialled };
  if (state === "connected") return { kind: "connected", snapshot };
  return refused === true ? { kind: "refused", why: lastError } : undefined;
}
