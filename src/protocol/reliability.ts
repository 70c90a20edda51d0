import type { Reliability } from "./agent-frames.ts";

/** The share of the time known in which the node was up, 0 to 1; undefined where no time is known. */
export function upShare({
  upSeconds,
  downSeconds,
}: Pick<Reliability, "upSeconds" | "downSeconds">): number | undefined {
  const known = upSeconds + downSeconds;
  return known > 0 ? upSeconds / known : undefined;
}

/** The same for a person, as "99.8 %": rounded down, so that 100 % means never down. "unknown" where no time is known. */
export function upInWords({ upSeconds, downSeconds }: Pick<Reliability, "upSeconds" | "downSeconds">): string {
  const known = upSeconds + downSeconds;
  return known > 0 ? `${Math.floor((upSeconds * 1000) / known) / 10} %` : "unknown";
}
