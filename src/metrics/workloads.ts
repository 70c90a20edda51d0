import type { Snapshot } from "../local/snapshot.ts";
import { WORKLOAD_STATES } from "../protocol/workload.ts";
import { bytes, type Family, ratio, seconds } from "./figures.ts";
import { histogramSamples } from "./histogram.ts";
import type { Description, Sample } from "./text.ts";

type WorkloadStatus = Snapshot["workloads"][number];

/** One that has ended is told this much longer, so that a scrape every few minutes sees how. */
const ENDED_FOR_MS = 600_000;
/** Told by name; the counts are of all. */
const NAMED_MOST = 100;

/** Those told by name: what has not ended, then what has ended lately, the newest first. */
function named({ workloads, at }: Snapshot): WorkloadStatus[] {
  const since = new Date(Date.parse(at) - ENDED_FOR_MS).toISOString();
  const live = workloads.filter(({ finishedAt }) => finishedAt === undefined);
  const ended = workloads
    .filter(({ finishedAt }) => finishedAt !== undefined && finishedAt >= since)
    .sort((a, b) => (b.finishedAt ?? "").localeCompare(a.finishedAt ?? ""));
  return [...live, ...ended].slice(0, NAMED_MOST);
}

const LABELS = ["workload", "generation"];
const labelsOf = ({ id, generation }: WorkloadStatus) => ({ workload: id, generation: String(generation) });

/** One series for each workload told by name of which `value` knows something. */
function each(
  name: string,
  help: string,
  value: (workload: WorkloadStatus) => number | undefined,
  type: Description["type"] = "gauge",
): Family {
  return {
    name: `gpunode_workload_${name}`,
    type,
    help,
    labels: LABELS,
    samples: ({ snapshot }) =>
      named(snapshot).flatMap((workload): Sample[] => {
        const told = value(workload);
        return told === undefined ? [] : [{ labels: labelsOf(workload), value: told }];
      }),
  };
}

/** Workloads. Those that have not ended are told by name, and those that ended within ten minutes: a hundred at most. */
export const WORKLOAD_FAMILIES: readonly Family[] = [
  {
    name: "gpunode_workloads",
    type: "gauge",
    help: "Workloads the node knows, by state; ended ones until they are forgotten",
    labels: ["state"],
    samples: ({ snapshot }) =>
      WORKLOAD_STATES.map((state) => ({
        labels: { state },
        value: snapshot.workloads.filter((workload) => workload.state === state).length,
      })),
  },
  {
    name: "gpunode_workload_info",
    type: "gauge",
    help: "A workload and its image; always 1",
    labels: [...LABELS, "image"],
    samples: ({ snapshot }) =>
      named(snapshot).map((workload) => ({ labels: { ...labelsOf(workload), image: workload.image }, value: 1 })),
  },
  {
    name: "gpunode_workload_state",
    type: "gauge",
    help: "The state the workload is in; 1 for that one alone",
    labels: [...LABELS, "state"],
    samples: ({ snapshot }) =>
      named(snapshot).map((workload) => ({ labels: { ...labelsOf(workload), state: workload.state }, value: 1 })),
  },
  {
    name: "gpunode_workload_notice",
    type: "gauge",
    help: "The workload has been told that its GPUs are taken back, by whom; 1 until it has ended",
    labels: [...LABELS, "cause"],
    samples: ({ snapshot }) =>
      named(snapshot).flatMap((workload) =>
        workload.notice === undefined
          ? []
          : [{ labels: { ...labelsOf(workload), cause: workload.notice.cause }, value: 1 }],
      ),
  },
  each("notice_deadline_timestamp_seconds", "When it must be over, seconds since the epoch", ({ notice }) =>
    seconds(notice?.deadline),
  ),
  each("start_time_seconds", "When it began to run, seconds since the epoch", ({ startedAt }) => seconds(startedAt)),
  each("healthy", "Whether its health probe succeeds; absent where it has none", ({ healthy }) =>
    healthy === undefined ? undefined : Number(healthy),
  ),
  each("restarts_total", "How often it was started again", ({ restarts }) => restarts, "counter"),
  each("cpu_cores", "CPU cores it keeps busy", ({ usage }) => ratio(usage?.cpuPercent)),
  each("memory_bytes", "Memory it uses", ({ usage }) => bytes(usage?.memoryMiB)),
  each("memory_limit_bytes", "Memory it may use", ({ usage }) => bytes(usage?.memoryLimitMiB)),
  each("vram_bytes", "GPU memory it uses", ({ usage }) => bytes(usage?.vramUsedMiB)),
  each("gpu_utilization_ratio", "Utilization of its GPUs, on average", ({ usage }) =>
    ratio(usage?.gpuUtilizationPercent),
  ),
  each(
    "network_receive_bytes_total",
    "Bytes its container has received since it was started",
    ({ usage }) => usage?.networkRxBytes,
    "counter",
  ),
  each(
    "network_transmit_bytes_total",
    "Bytes its container has sent since it was started",
    ({ usage }) => usage?.networkTxBytes,
    "counter",
  ),
  {
    name: "gpunode_workload_seconds_total",
    type: "counter",
    help: "Seconds workloads ran, from the usage records written since gpunode started: one a minute and one at a workload's end",
    labels: [],
    samples: ({ tally }) => [{ labels: {}, value: tally.workloadSeconds }],
  },
  {
    name: "gpunode_workload_finished_total",
    type: "counter",
    help: "Workloads that ended since gpunode started, by how and why",
    labels: ["state", "reason"],
    samples: ({ tally }) =>
      tally.finished.map(({ state, reason, count }) => ({ labels: { state, reason }, value: count })),
  },
  {
    name: "gpunode_image_pull_seconds",
    type: "histogram",
    help: "How long workloads waited for their image, in seconds, since gpunode started; those whose image was there already too",
    labels: [],
    samples: ({ tally }) => histogramSamples(tally.pulls),
  },
  {
    name: "gpunode_image_pull_bytes_total",
    type: "counter",
    help: "Bytes of images downloaded since gpunode started; what two workloads waited for counts twice",
    labels: [],
    samples: ({ tally }) => [{ labels: {}, value: tally.pulledBytes }],
  },
];
