/** When to dial again. */
export interface BackoffPolicy {
  /** Never sooner than this, milliseconds. */
  firstMs: number;
  /** Never later than this, unless the coordinator asks for it. */
  mostMs: number;
  /** A session this long counts as a good one: the next wait is a short one again. */
  lastedMs: number;
}

export const BACKOFF: BackoffPolicy = { firstMs: 500, mostMs: 60_000, lastedMs: 30_000 };

/** A coordinator may ask for a pause, not for good-bye: a day at most. */
const MOST_RETRY_AFTER_MS = 86_400_000;

export interface Ending {
  /** Attempts since the last good session, this one included; 0 after a good one. */
  failures: number;
  /** What the coordinator asked for. */
  retryAfterSeconds?: number;
  /** Another session with the same key took this one's place. */
  replaced?: boolean;
}

/**
 * Milliseconds until the next attempt: anywhere between the shortest wait and a ceiling that doubles with each failure
 * (full jitter, so that a fleet does not come back in one instant). `random` is in [0, 1).
 *
 * Replaced by a newer session means a second agent with this key: coming back at once would only throw that one out in
 * turn, so the wait is long.
 */
export function nextDelayMs(ending: Ending, random: () => number, policy: BackoffPolicy = BACKOFF): number {
  const { failures, retryAfterSeconds, replaced = false } = ending;
  const { firstMs, mostMs } = policy;
  const ceiling = Math.min(mostMs, firstMs * 2 ** Math.min(failures + 1, 30));
  const floor = replaced ? mostMs / 2 : Math.min(firstMs, mostMs);
  const asked = Math.min((retryAfterSeconds ?? 0) * 1000, MOST_RETRY_AFTER_MS);
  const spread = (replaced ? mostMs : ceiling) - floor;
  if (asked > floor) return asked + random() * Math.min(spread, asked / 10);
  return floor + random() * spread;
}
