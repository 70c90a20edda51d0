import { upShare } from "../protocol/reliability.ts";
import { alone, bytes, type Family, type Figures, ratio, seconds, stateSet } from "./figures.ts";
import { histogramSamples } from "./histogram.ts";
import type { Description, Sample } from "./text.ts";

const LEVELS = ["normal", "elevated", "critical"];

/** A family of one series without labels. */
function single(
  name: string,
  type: Description["type"],
  help: string,
  value: (figures: Figures) => number | undefined,
): Family {
  return { name, type, help, labels: [], samples: (figures) => alone(value(figures)) };
}

/** One series for each key of a count. */
function counted(
  name: string,
  help: string,
  label: string,
  counts: (figures: Figures) => ReadonlyMap<string, number>,
): Family {
  return {
    name,
    type: "counter",
    help,
    labels: [label],
    samples: (figures) => [...counts(figures)].map(([key, value]) => ({ labels: { [label]: key }, value })),
  };
}

function pressure({ snapshot, pressure: levels }: Figures): Sample[] {
  const level = (name: string) => LEVELS.indexOf(name);
  return [
    { labels: { resource: "host_memory" }, value: level(levels.host_memory) },
    { labels: { resource: "disk" }, value: level(levels.disk) },
    ...snapshot.gpus.flatMap(({ index, uuid, telemetry }) =>
      telemetry?.pressure === undefined
        ? []
        : [{ labels: { resource: "vram", gpu: String(index), uuid }, value: level(telemetry.pressure) }],
    ),
  ];
}

/** The node itself, its link, what happens on it, and how it has been. */
export const NODE_FAMILIES: readonly Family[] = [
  {
    name: "gpunode_build_info",
    type: "gauge",
    help: "What runs here; always 1",
    labels: ["version", "nodejs"],
    samples: ({ snapshot }) => [{ labels: { version: snapshot.node.version, nodejs: process.version }, value: 1 }],
  },
  {
    name: "gpunode_node_info",
    type: "gauge",
    help: "Who the node is; always 1",
    labels: ["node", "name"],
    samples: ({ snapshot: { node } }) => [{ labels: { node: node.id, name: node.name }, value: 1 }],
  },
  {
    name: "gpunode_node_state",
    type: "gauge",
    help: "1 for the state the node is in, 0 for the others",
    labels: ["state"],
    samples: ({ snapshot }) => stateSet({}, "state", ["available", "draining", "stopping"], snapshot.node.state),
  },
  single("gpunode_time_seconds", "gauge", "The node's clock, seconds since the epoch", ({ snapshot }) =>
    seconds(snapshot.at),
  ),
  {
    name: "gpunode_node_hold",
    type: "gauge",
    help: "Somebody keeps the whole node from being lent; 1 while it lasts",
    labels: ["cause"],
    samples: ({ snapshot }) =>
      snapshot.holds.flatMap(({ cause, gpus }) => (gpus === undefined ? [{ labels: { cause }, value: 1 }] : [])),
  },
  {
    name: "gpunode_problem",
    type: "gauge",
    help: "Something keeps the node from being all it could be; 1 while it lasts",
    labels: ["code"],
    samples: ({ snapshot }) => snapshot.problems.map(({ code }) => ({ labels: { code }, value: 1 })),
  },
  single("gpunode_problems", "gauge", "Problems that last", ({ snapshot }) => snapshot.problems.length),
  single("gpunode_engine_up", "gauge", "Whether the container engine answers", ({ snapshot }) =>
    Number(snapshot.engine.available),
  ),
  single("gpunode_state_database_writable", "gauge", "Whether the disk takes what the node writes down", ({ state }) =>
    Number(state.isWritable),
  ),
  single("gpunode_state_database_bytes", "gauge", "Size of the node's database", ({ state }) => state.bytes),
  {
    name: "gpunode_pressure_level",
    type: "gauge",
    help: "How near a resource is to its end: 0 normal, 1 elevated, 2 critical",
    labels: ["resource", "gpu", "uuid"],
    samples: pressure,
  },
  single("gpunode_host_cpu_utilization_ratio", "gauge", "Share of the machine's CPUs that is busy", ({ snapshot }) =>
    ratio(snapshot.host.telemetry?.cpuPercent),
  ),
  single(
    "gpunode_host_memory_used_bytes",
    "gauge",
    "Memory of the machine that could not be given out",
    ({ snapshot }) => bytes(snapshot.host.telemetry?.memoryUsedMiB),
  ),
  single("gpunode_host_memory_total_bytes", "gauge", "Memory of the machine", ({ snapshot }) =>
    bytes(snapshot.host.telemetry?.memoryTotalMiB),
  ),
  single("gpunode_host_disk_free_bytes", "gauge", "Disk space left where images and layers lie", ({ snapshot }) =>
    bytes(snapshot.host.telemetry?.diskFreeMiB),
  ),
  single(
    "gpunode_sample_timestamp_seconds",
    "gauge",
    "When the newest figures of GPUs, machine and workloads were taken, seconds since the epoch",
    ({ sampledAtMs }) => sampledAtMs && sampledAtMs / 1000,
  ),
  single(
    "gpunode_link_connected",
    "gauge",
    "Whether there is a session with the coordinator; absent where none is configured",
    ({ snapshot: { connection } }) =>
      connection.state === "off" ? undefined : Number(connection.state === "connected"),
  ),
  single(
    "gpunode_link_session_start_time_seconds",
    "gauge",
    "When the session with the coordinator began, seconds since the epoch; absent without one",
    ({ snapshot: { connection } }) => (connection.state === "connected" ? seconds(connection.since) : undefined),
  ),
  single(
    "gpunode_link_reconnects_total",
    "counter",
    "Sessions with the coordinator after the first since gpunode started",
    ({ link }) => link && Math.max(0, link.sessions - 1),
  ),
  single(
    "gpunode_telemetry_frames_sent_total",
    "counter",
    "Frames of telemetry given to the coordinator since gpunode started",
    ({ link }) => link?.telemetrySent,
  ),
  single(
    "gpunode_telemetry_frames_skipped_total",
    "counter",
    "Frames of telemetry left out since gpunode started because the coordinator did not keep up",
    ({ link }) => link?.telemetrySkipped,
  ),
  single(
    "gpunode_events_unacked",
    "gauge",
    "Durable events that no coordinator has acknowledged",
    ({ snapshot }) => snapshot.connection.unackedEvents,
  ),
  counted(
    "gpunode_events_total",
    "Durable events written since gpunode started, by kind",
    "kind",
    ({ tally }) => tally.events,
  ),
  counted(
    "gpunode_preemptions_total",
    "Workloads that ended since gpunode started because their GPUs were taken back, by who took them",
    "cause",
    ({ tally }) => tally.preemptions,
  ),
  {
    name: "gpunode_preemption_notice_seconds",
    type: "histogram",
    help: "From a notice to the deadline it told, in seconds, since gpunode started",
    labels: [],
    samples: ({ tally }) => histogramSamples(tally.notices),
  },
  single(
    "gpunode_reliability_up_ratio",
    "gauge",
    "Share of the last 30 days, as far as they are known, in which gpunode ran; over restarts",
    ({ snapshot: { reliability } }) => reliability && upShare(reliability),
  ),
  single(
    "gpunode_reliability_up_seconds",
    "gauge",
    "Time of the last 30 days in which gpunode ran; over restarts",
    ({ snapshot: { reliability } }) => reliability?.upSeconds,
  ),
  single(
    "gpunode_reliability_down_seconds",
    "gauge",
    "Time of the last 30 days in which gpunode did not run; over restarts",
    ({ snapshot: { reliability } }) => reliability?.downSeconds,
  ),
  {
    name: "gpunode_reliability_workloads",
    type: "gauge",
    help: "How workloads of the last 30 days ended that had run here; over restarts",
    labels: ["outcome"],
    samples: ({ snapshot: { reliability } }) =>
      Object.entries(reliability?.workloads ?? {}).map(([outcome, value]) => ({ labels: { outcome }, value })),
  },
  {
    name: "gpunode_reliability_preemptions",
    type: "gauge",
    help: "Workloads of the last 30 days whose GPUs were taken back, by who took them; over restarts",
    labels: ["cause"],
    samples: ({ snapshot: { reliability } }) =>
      (reliability?.preemptions ?? []).map(({ cause, count }) => ({ labels: { cause }, value: count })),
  },
];
