import type { LocalClient } from "../../local/client.ts";
import type { History as Told } from "../../local/history.ts";
import type { Snapshot } from "../../local/snapshot.ts";
import type { EarlierHistory, HistoryPoint } from "./history.ts";

const HOUR_MS = 3_600_000;

/** The last day as the daemon keeps it: the last hour in small steps, what was before it in larger ones. Rejects where it does not tell. */
export async function readEarlier(
  daemon: Pick<LocalClient, "history">,
  { gpus }: Pick<Snapshot, "gpus">,
  signal: AbortSignal,
): Promise<EarlierHistory> {
  const [day, hour] = await Promise.all([24, 1].map((hours) => daemon.history({ hours, signal })));
  if (day === undefined || hour === undefined) return new Map();
  const hourFrom = Date.parse(hour.at) - HOUR_MS;
  return new Map(
    gpus.map(({ uuid, vramMiB, telemetry }) => {
      const totalMiB = telemetry?.vramTotalMiB ?? vramMiB;
      const before = pointsOf(day, uuid, totalMiB).filter(({ at, lastsMs = 0 }) => at + lastsMs <= hourFrom);
      return [uuid, [...before, ...pointsOf(hour, uuid, totalMiB)]];
    }),
  );
}

function pointsOf({ series, at: now }: Told, uuid: string, totalMiB: number | undefined): HistoryPoint[] {
  const told = series[uuid];
  if (told === undefined) return [];
  const { startMs, stepMs, utilizationPercent, vramUsedMiB } = told;
  return utilizationPercent.map((utilization, index): HistoryPoint => {
    const at = startMs + index * stepMs;
    const usedMiB = vramUsedMiB[index] ?? undefined;
    return {
      at,
      // The last step is not over yet.
      lastsMs: Math.max(1, Math.min(stepMs, Date.parse(now) - at)),
      ...(utilization !== null && { utilizationPercent: utilization }),
      ...(usedMiB !== undefined && totalMiB && { vramPercent: (100 * usedMiB) / totalMiB }),
    };
  });
}
