import type {
  EngineInfo,
  Hold,
  HostInfo,
  HostTelemetry,
  Problem,
  Reliability,
  WorkloadTelemetry,
} from "../protocol/agent-frames.ts";
import type { PreemptionCause } from "../protocol/event.ts";
import type { Gpu, GpuTelemetry } from "../protocol/gpu.ts";
import type { PortBinding, WorkloadState } from "../protocol/workload.ts";

/** Changes when a field is taken away or changes its meaning; new fields may come at any time. */
export const SNAPSHOT_VERSION = 1;

/**
 * All the daemon shows its owner at one moment: `GET /v1/status`, `gpunode status --json`. Plain JSON; times are RFC 3339
 * in UTC, absent means unknown.
 */
export interface Snapshot {
  snapshotVersion: typeof SNAPSHOT_VERSION;
  at: string;
  node: NodeStatus;
  connection: ConnectionStatus;
  gpus: GpuStatus[];
  /** Who keeps what from being lent, and until when. */
  holds: Hold[];
  host: { info: HostInfo; telemetry?: HostTelemetry };
  engine: EngineInfo;
  /** Newest first. */
  workloads: WorkloadStatus[];
  /** What the node has proved to be like over the last 30 days; absent where nothing is known yet. */
  reliability?: Reliability;
  /** Where a browser on this machine finds the page, `http://127.0.0.1:9835/`; absent where it is off. */
  page?: string;
  /** What keeps the node from being all it could be, now. */
  problems: (Problem & { since?: string })[];
  /** The last thing that went wrong, also where it is over. */
  lastError?: { message: string; at: string };
}

export interface NodeStatus {
  id: string;
  name: string;
  labels: Readonly<Record<string, string>>;
  version: string;
  pid: number;
  startedAt: string;
  uptimeSeconds: number;
  state: "available" | "draining" | "stopping";
}

export interface ConnectionStatus {
  /** Where the daemon dials; absent in state `off`. */
  url?: string;
  /**
   * `off`: no coordinator is configured. `connecting`: dialling or in the handshake. `connected`: welcomed. `waiting`:
   * until `retryAt`, because of `lastError`.
   */
  state: "off" | "connecting" | "connected" | "waiting";
  since: string;
  coordinatorId?: string;
  sessionId?: string;
  lastError?: string;
  /** In state `waiting`: the coordinator said no. It is asked again, and says the same until something is changed. */
  refused?: true;
  retryAt?: string;
  /** Durable events the coordinator has not acknowledged yet. */
  unackedEvents: number;
}

export type GpuStatus = Gpu & { telemetry?: GpuTelemetry };

export interface WorkloadStatus {
  id: string;
  generation: number;
  state: WorkloadState;
  image: string;
  /** UUIDs of the GPUs or MIG instances it holds. */
  gpus: string[];
  /** It has been told that its GPUs are taken back; without a deadline it is a warning. */
  notice?: { cause: PreemptionCause; message?: string; deadline?: string };
  ports: PortBinding[];
  restarts: number;
  healthy?: boolean;
  reason?: string;
  message?: string;
  /** When it came into this state. */
  since?: string;
  acceptedAt: string;
  startedAt?: string;
  finishedAt?: string;
  exitCode?: number;
  oomKilled?: boolean;
  pull?: { currentBytes: number; totalBytes: number };
  usage?: Omit<WorkloadTelemetry, "id">;
}
