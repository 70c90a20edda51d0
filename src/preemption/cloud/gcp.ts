import { bodyOf, type CloudNotices, type MetadataClient, type Notice } from "./metadata.ts";

/**
 * Google Compute Engine ("Preemption process", "Query metadata server for maintenance event notices", "Handle GPU host maintenance events"). A
 * spot machine that is taken has 30 seconds; one with GPUs cannot be moved while it runs and is told of maintenance an hour ahead, one
 * without a minute. The notice of maintenance is only given to those who have asked since the last one.
 */
export const GCP_URL = "http://169.254.169.254";

const PREEMPTED = "/computeMetadata/v1/instance/preempted";
const MAINTENANCE = "/computeMetadata/v1/instance/maintenance-event";
/** Without it the service refuses, and every answer of its own has it. */
const FLAVOR = "Google";

const PREEMPTION_MS = 30_000;
const MAINTENANCE_MS = { withGpus: 60 * 60_000, without: 60_000 };

export function gcpNotices(client: MetadataClient, hasGpus: () => boolean): CloudNotices {
  const read = async (path: string, signal: AbortSignal): Promise<string> => {
    const answer = await client.get(path, { headers: { "Metadata-Flavor": FLAVOR } }, signal);
    const body = bodyOf(answer, path).trim();
    if (answer.headers["metadata-flavor"] !== FLAVOR) throw new Error(`${path} was not answered by Google's service`);
    return body;
  };

  return {
    intervalMs: 1_000,
    async read(now, signal) {
      const preempted = await read(PREEMPTED, signal);
      // Thirty seconds are left: nothing else is waited for.
      if (preempted === "TRUE") return [preemption(now)];
      if (preempted !== "FALSE") throw new Error(`${PREEMPTED} was answered with neither TRUE nor FALSE`);
      const maintenance = await read(MAINTENANCE, signal);
      if (maintenance === "TERMINATE_ON_HOST_MAINTENANCE") {
        return [stopForMaintenance(now + (hasGpus() ? MAINTENANCE_MS.withGpus : MAINTENANCE_MS.without))];
      }
      // NONE, a migration that work survives, and what may be added one day.
      if (/^[A-Z_]{1,64}$/.test(maintenance)) return [];
      throw new Error(`${MAINTENANCE} was answered with something that is no word`);
    },
  };
}

function preemption(now: number): Notice {
  const message = "Google takes this spot machine within 30 seconds";
  return { key: "preempted", work: "stop", at: now + PREEMPTION_MS, message };
}

function stopForMaintenance(at: number): Notice {
  const clock = new Date(at).toISOString().slice(11, 16);
  const message = `Google stops this machine for maintenance of its host at about ${clock} UTC`;
  return { key: "maintenance", work: "stop_in_time", at, message };
}
