import type { LocalClient } from "../../local/client.ts";
import type { UsageSums } from "../../local/usage-summary.ts";

/** What was lent on one day. */
export interface DayLent {
  /** Local date, `YYYY-MM-DD`. */
  day: string;
  gpuSeconds: number;
  /** Absent where the boards tell no power. */
  energyJoules?: number;
}

/** What a bill is made of. */
export interface Earnings {
  /** The last seven days, oldest first, today the last; those on which nothing was lent included. */
  days: DayLent[];
  /** Every record is signed by this node and none is missing. */
  isVerified: boolean;
}

const DAYS = 7;
const DAY_MS = 86_400_000;
/** Records of a container that ended while no daemon ran are written late; older ones than this are found by the next full reading. */
const LOOK_BACK_MS = 3_600_000;

/**
 * Reads the ledger and verifies each record once: the first reading takes a week of them, later ones what was added since. A reading that
 * fails changes nothing.
 */
export function createEarningsReader(
  daemon: Pick<LocalClient, "usage">,
  { signal, now = Date.now }: { signal?: AbortSignal; now?: () => number } = {},
) {
  let known: { sums: UsageSums; today: string; readAt: number } | undefined;
  return async (): Promise<Earnings> => {
    const [{ publicKeyFrom }, { createUsageSums, localDay }] = await Promise.all([
      import("../../protocol/identity.ts"),
      import("../../local/usage-summary.ts"),
    ]);
    const at = now();
    const days = lastDays(at, localDay);
    const [first = "", today = ""] = [days[0], days.at(-1)];
    // A new day begins with a reading of the whole week: what is older is forgotten, what came late is found.
    const before = known?.today === today ? known : undefined;
    const sums = before?.sums ?? createUsageSums();
    const sinceMs = before === undefined ? new Date(`${first}T00:00:00`).getTime() : before.readAt - LOOK_BACK_MS;
    const { node, records } = await daemon.usage(sinceMs, signal === undefined ? {} : { signal });
    const keys = [node, ...node.replaces].map(({ publicKey }) => publicKeyFrom(publicKey));
    for await (const raw of records) if (before === undefined || !sums.has(raw)) sums.add(raw, keys);
    known = { sums, today, readAt: at };
    const { days: lent, problems } = sums.summary();
    return {
      days: days.map((day) => {
        const ofDay = lent.filter((one) => one.day === day);
        const joules = ofDay.flatMap(({ energyJoules }) => energyJoules ?? []);
        return {
          day,
          gpuSeconds: ofDay.reduce((sum, { gpuSeconds }) => sum + gpuSeconds, 0),
          ...(joules.length > 0 && { energyJoules: joules.reduce((sum, value) => sum + value, 0) }),
        };
      }),
      isVerified: problems.length === 0,
    };
  };
}

/** From noon to noon, so that a day of 23 or 25 hours is still one. */
function lastDays(at: number, localDay: (at: Date) => string): string[] {
  const noon = new Date(at).setHours(12, 0, 0, 0);
  return Array.from({ length: DAYS }, (_, index) => localDay(new Date(noon - (DAYS - 1 - index) * DAY_MS)));
}
