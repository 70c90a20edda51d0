import { useEffect, useState } from "preact/hooks";
import type { History } from "../history.ts";
import type { Snapshot } from "../snapshot.ts";
import type { UsageDays } from "../usage-days.ts";

/** Each look makes the daemon sample the GPUs for five seconds, so nobody looks from a hidden page. */
const STATUS_EVERY_MS = 2_000;
const USAGE_EVERY_MS = 60_000;
/** History is asked for no more often than its steps, nor less often than this. */
const HISTORY_LEAST_MS = 60_000;
const PATIENCE_MS = 8_000;

/** What the daemon last said, and since when it says nothing. */
export interface Feed {
  snapshot?: Snapshot;
  /** By this browser's clock, when `snapshot` came. */
  receivedMs: number;
  /** Set while it does not answer. */
  silence?: { sinceMs: number; why: string };
}

/** The newest snapshot, asked for while the page is seen. */
export function useStatus(): Feed {
  const [feed, setFeed] = useState<Feed>({ receivedMs: 0 });
  useEffect(() => {
    const over = new AbortController();
    void whileSeen(over.signal, async () => {
      try {
        const snapshot = (await ask("v1/status", over.signal)) as Snapshot;
        setFeed((before) => {
          // Another daemon brings another page.
          if (before.snapshot !== undefined && before.snapshot.node.version !== snapshot.node.version)
            location.reload();
          return { snapshot, receivedMs: Date.now() };
        });
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        setFeed((before) => ({ ...before, silence: { sinceMs: before.silence?.sinceMs ?? Date.now(), why } }));
      }
      return STATUS_EVERY_MS;
    });
    return () => over.abort();
  }, []);
  return feed;
}

/** The last hours; undefined until they are known. */
export function useHistory(hours: number): History | undefined {
  const stepMs = hours <= 1 ? 10_000 : HISTORY_LEAST_MS;
  const [known, setKnown] = useState<{ hours: number; history: History }>();
  useAnswer(`v1/history?hours=${hours}`, stepMs, (answer) => setKnown({ hours, history: answer as History }));
  return known?.hours === hours ? known.history : undefined;
}

/** What was used in the last seven days; undefined until it is known. */
export function useUsage(): UsageDays | undefined {
  const [usage, setUsage] = useState<UsageDays>();
  useAnswer("v1/usage-days", USAGE_EVERY_MS, (answer) => setUsage(answer as UsageDays));
  return usage;
}

/** The daemon's time, turning by the second from what it last said; it stands still while the daemon is silent. */
export function useNow({ snapshot, receivedMs, silence }: Feed): number {
  const [, turn] = useState(0);
  useEffect(() => {
    if (silence !== undefined) return undefined;
    const timer = setInterval(() => turn((count) => count + 1), 1_000);
    return () => clearInterval(timer);
  }, [silence !== undefined]);
  if (snapshot === undefined) return Date.now();
  return Date.parse(snapshot.at) + (silence === undefined ? Math.max(0, Date.now() - receivedMs) : 0);
}

function useAnswer(path: string, everyMs: number, take: (answer: unknown) => void): void {
  useEffect(() => {
    const over = new AbortController();
    void whileSeen(over.signal, async () => {
      // That the daemon is silent is told by who asks for its status.
      const answer = await ask(path, over.signal).catch(() => undefined);
      if (answer !== undefined && !over.signal.aborted) take(answer);
      return answer === undefined ? STATUS_EVERY_MS : everyMs;
    });
    return () => over.abort();
  }, [path]);
}

async function ask(path: string, signal: AbortSignal): Promise<unknown> {
  const response = await fetch(path, { signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]) });
  if (!response.ok) throw new Error((await response.text()).trim().slice(0, 200));
  return (await response.json()) as unknown;
}

/** Does `task` again and again, as many milliseconds after its end as it returns; not while the page is hidden. */
async function whileSeen(signal: AbortSignal, task: () => Promise<number>): Promise<void> {
  while (!signal.aborted) {
    if (document.visibilityState === "hidden") await shown(signal);
    if (signal.aborted) return;
    await pause(await task(), signal);
  }
}

function shown(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const listening = new AbortController();
    const look = () => {
      if (document.visibilityState === "hidden" && !signal.aborted) return;
      listening.abort();
      resolve();
    };
    document.addEventListener("visibilitychange", look, { signal: listening.signal });
    signal.addEventListener("abort", look, { signal: listening.signal });
  });
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
