import type { KeyObject } from "node:crypto";
import canonicalize from "canonicalize";
import type { UsageEvent } from "./event.ts";
import { verifySignature } from "./identity.ts";

/** A usage record before the node has signed it. */
export type UnsignedUsage = Omit<UsageEvent, "signature">;

/**
 * The bytes a usage record is signed over: the record without its signature as RFC 8785 canonical JSON, so that who signs and who
 * checks need not agree on the order of keys or on how a number is written. What is not part of a record (`seq`, `at`, a node's id that a
 * coordinator added) is left out.
 */
export function usageBytes(record: UnsignedUsage & { signature?: string }): Buffer {
  const { kind, workload, generation, from, to, gpus, gpuSeconds, final } = record;
  const { gpuUtilizationMeanPercent, vramPeakMiB, energyJoules, cpuSeconds } = record;
  const { networkRxBytes, networkTxBytes, observedSeconds } = record;
  const told = {
    ...{ kind, workload, generation, from, to, gpus, gpuSeconds, final },
    ...{ gpuUtilizationMeanPercent, vramPeakMiB, energyJoules, cpuSeconds },
    ...{ networkRxBytes, networkTxBytes, observedSeconds },
  };
  const text = canonicalize(told);
  if (text === undefined) throw new TypeError("a usage record is an object");
  return Buffer.from(text, "utf8");
}

/** The record with the node's signature, base64url. */
export function signUsage(record: UnsignedUsage, sign: (bytes: Uint8Array) => Buffer): UsageEvent {
  return { ...record, signature: sign(usageBytes(record)).toString("base64url") };
}

/** True where `record` is as the holder of this key signed it. */
export function verifyUsage(record: UsageEvent, key: KeyObject): boolean {
  return verifySignature(key, usageBytes(record), record.signature);
}

/**
 * One record for several of a generation that follow each other, so that their sum stays the bill where there is no room for each.
 * Throws RangeError where there are none.
 */
export function foldUsage(records: readonly UsageEvent[]): UnsignedUsage {
  const [first, last] = [records[0], records.at(-1)];
  if (first === undefined || last === undefined) throw new RangeError("no usage records to fold");
  const sum = (
    key: "gpuSeconds" | "energyJoules" | "cpuSeconds" | "networkRxBytes" | "networkTxBytes" | "observedSeconds",
  ) => {
    const values = records.flatMap((record) => record[key] ?? []);
    return values.length === 0
      ? undefined
      : Math.round(values.reduce((total, value) => total + value, 0) * 1000) / 1000;
  };
  const busy = records.filter(({ gpuUtilizationMeanPercent }) => gpuUtilizationMeanPercent !== undefined);
  const busySeconds = busy.reduce((total, { observedSeconds = 0 }) => total + observedSeconds, 0);
  const busyPercent = busy.reduce(
    (total, { gpuUtilizationMeanPercent = 0, observedSeconds = 0 }) =>
      total + gpuUtilizationMeanPercent * observedSeconds,
    0,
  );
  const peaks = records.flatMap(({ vramPeakMiB }) => vramPeakMiB ?? []);
  const { signature: _, gpuUtilizationMeanPercent: __, ...base } = last;
  const folded: Record<string, unknown> = {
    ...base,
    from: first.from,
    gpuSeconds: sum("gpuSeconds") ?? 0,
    gpuUtilizationMeanPercent: busySeconds === 0 ? undefined : Math.round((busyPercent / busySeconds) * 1000) / 1000,
    vramPeakMiB: peaks.length === 0 ? undefined : Math.max(...peaks),
    energyJoules: sum("energyJoules"),
    cpuSeconds: sum("cpuSeconds"),
    networkRxBytes: sum("networkRxBytes"),
    networkTxBytes: sum("networkTxBytes"),
    observedSeconds: sum("observedSeconds"),
  };
  for (const [key, value] of Object.entries(folded)) if (value === undefined) delete folded[key];
  return folded as UnsignedUsage;
}

/** What one generation's usage was judged by so far, for `chainProblem`. */
export type ChainLink = Pick<UsageEvent, "to" | "final">;

/** What is wrong with `record` as the one that follows `before`; undefined where the two fit. */
export function chainProblem(record: UsageEvent, before: ChainLink | undefined): string | undefined {
  const seconds = (Date.parse(record.to) - Date.parse(record.from)) / 1000;
  if (seconds < 0) return `it ends before it begins (${record.from} to ${record.to})`;
  if (before?.final === true) return `it follows the final record of its workload`;
  if (before !== undefined && before.to < record.from) return `nothing is told of ${before.to} to ${record.from}`;
  if (before !== undefined && before.to > record.from) return `${record.from} to ${before.to} is told twice`;
  const expected = seconds * record.gpus.length;
  // Milliseconds, rounded once for each GPU.
  if (Math.abs(record.gpuSeconds - expected) > 0.001 * (record.gpus.length + 1)) {
    return `${record.gpuSeconds} GPU-seconds in ${seconds} s on ${record.gpus.length} GPUs`;
  }
  return undefined;
}
