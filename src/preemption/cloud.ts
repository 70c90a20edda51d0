import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../workload/needs.ts";
import type { Claim, Raise } from "./claim.ts";
import { AWS_URL, awsNotices } from "./cloud/aws.ts";
import { AZURE_URL, azureNotices } from "./cloud/azure.ts";
import { type Cloud, detectCloud } from "./cloud/detect.ts";
import { GCP_URL, gcpNotices } from "./cloud/gcp.ts";
import { type CloudNotices, type MetadataClient, metadataClient, type Notice } from "./cloud/metadata.ts";

export interface CloudOptions {
  /** `auto` goes by the machine's firmware. */
  provider: Cloud | "auto";
  /** `http://host[:port]` instead of the cloud's own address. */
  metadataUrl?: string;
  /** Where the firmware tells of itself, if not in /sys. */
  dmiDir?: string;
  /** The wall clock; milliseconds since the epoch. */
  now(): number;
  /** The clock for deadlines. */
  steady(): number;
  /** Whether this machine has GPUs: Google gives those longer notice. */
  hasGpus(): boolean;
  raise: Raise;
  /** An earlier agent gave notice for the cloud: the first look is told whatever it shows. */
  hadNotice?: boolean;
  log: Pick<Log, "info" | "warn">;
  times?: CloudTimes;
}

/** Other times than the usual ones, for tests. */
export interface CloudTimes {
  intervalMs?: number;
  timeoutMs?: number;
  /** Of Azure's first answer. */
  firstTimeoutMs?: number;
  longestPauseMs?: number;
}

const NAMES: Record<Cloud, string> = { aws: "AWS", gcp: "Google Cloud", azure: "Azure" };

/** While the service fails, each pause is twice the last, up to this. */
const LONGEST_PAUSE_MS = 60_000;
/**
 * A notice holds the node from so long before what it tells of. Azure tells of some events days ahead: the log says so at once, and until
 * then the node goes on working.
 */
const LEAD_MS = 60 * 60_000;

/**
 * Watches the notices of the cloud this machine is rented from; undefined where it is nobody's cloud, and then nothing is ever asked.
 * What was told stays while the service fails: it is lifted when the service says that it is gone. Logs once for each outage.
 */
export function watchCloud(options: CloudOptions): AsyncDisposable | undefined {
  const cloud = options.provider === "auto" ? detectCloud(options.dmiDir) : options.provider;
  if (cloud === undefined) return undefined;
  const { metadataUrl, steady, hasGpus, times = {} } = options;
  const { url, noticesOf } = {
    aws: { url: AWS_URL, noticesOf: (client: MetadataClient) => awsNotices(client, steady) },
    gcp: { url: GCP_URL, noticesOf: (client: MetadataClient) => gcpNotices(client, hasGpus) },
    azure: { url: AZURE_URL, noticesOf: (client: MetadataClient) => azureNotices(client, times.firstTimeoutMs) },
  }[cloud];
  const client = metadataClient(metadataUrl ?? url, times.timeoutMs);
  const stop = new AbortController();
  options.log.info({ cloud }, `notices of ${NAMES[cloud]} are heeded`);
  const watching = watch(noticesOf(client), { ...options, cloud, signal: stop.signal });
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await watching;
    },
  };
}

async function watch(
  notices: CloudNotices,
  options: CloudOptions & { cloud: Cloud; signal: AbortSignal },
): Promise<void> {
  const { cloud, signal, log, now, times = {} } = options;
  const { intervalMs = notices.intervalMs, longestPauseMs = LONGEST_PAUSE_MS } = times;
  const judge = noticeJudge(options);
  let pauseMs = intervalMs;
  let isOut = false;
  while (!signal.aborted) {
    try {
      const told = await notices.read(now(), signal);
      judge(told);
      if (isOut) log.info({ cloud }, `the metadata service of ${NAMES[cloud]} answers again`);
      isOut = false;
      pauseMs = intervalMs;
    } catch (error) {
      if (signal.aborted) return;
      if (!isOut) {
        const why = error instanceof Error ? error.message : String(error);
        const remedy =
          "its notices are not seen until it answers; set cloud.provider, cloud.metadata_url or preemption.cloud_notice = false";
        log.warn({ cloud }, `the metadata service of ${NAMES[cloud]} cannot be used: ${why}: ${remedy}`);
      }
      isOut = true;
      pauseMs = Math.min(longestPauseMs, pauseMs * 2);
    }
    await sleep(pauseMs, undefined, { signal, ref: false }).catch(() => undefined);
  }
}

/** Makes claims of notices, and raises them where they have changed. */
function noticeJudge(options: Pick<CloudOptions, "now" | "steady" | "log" | "raise" | "hadNotice">) {
  const { now, steady, log, raise, hadNotice = false } = options;
  /** By key: the claim, which stays as it was made, or that it is not yet time for one. */
  let known = new Map<string, Claim | "later">();
  let raised = hadNotice ? undefined : "[]";
  return (told: readonly Notice[]): void => {
    const wall = now();
    const next = new Map<string, Claim | "later">();
    for (const notice of told) {
      const before = known.get(notice.key);
      const isFar = notice.at !== undefined && notice.at - wall > LEAD_MS;
      if (before === undefined) log.warn({ notice: notice.key }, notice.message);
      next.set(
        notice.key,
        before !== undefined && before !== "later" ? before : isFar ? "later" : claimOf(notice, wall, steady),
      );
    }
    known = next;
    const claims = [...known.values()].filter((claim) => claim !== "later");
    const keys = JSON.stringify([...known].filter(([, claim]) => claim !== "later").map(([key]) => key));
    if (keys === raised) return;
    raised = keys;
    raise(claims);
  };
}

function claimOf({ work, at, message }: Notice, wall: number, steady: () => number): Claim {
  if (at === undefined || work === "warn") return { work, message };
  // Due already, by a clock that may be wrong: at once, with the grace that each workload has.
  if (at <= wall) return { work: "stop", message };
  return { work, deadlineAt: steady() + (at - wall), message };
}
