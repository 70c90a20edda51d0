import type { Advertise } from "../protocol/agent-frames.ts";
import type { CoordinatorDatabase, NodeRecord } from "./database.ts";
import type { KeyBefore } from "./node-keys.ts";
import type { Schedule } from "./schedule.ts";
import type { PlacementState } from "./states.ts";
import type { Detail, OpenSpec, WorkloadRecord } from "./workload-table.ts";

/** A node as the API tells it: what it advertised last, and how it stands now. */
export interface NodeView extends Partial<Omit<Advertise, "type" | "state" | "images">> {
  id: string;
  /** Raw 32-byte Ed25519 key, base64url: its usage records verify with it. */
  publicKey: string;
  /** The keys it had before, oldest first; absent where this is its first. */
  replaces?: KeyBefore[];
  name: string;
  labels: Record<string, string>;
  connected: boolean;
  state: "available" | "draining" | "offline" | "barred";
  /** Set where the operator keeps it out. */
  barred?: { at: string; reason?: string };
  agentVersion: string;
  bootId: string;
  firstSeenAt: string;
  /** Of a node that is not connected: when it was last. */
  lastSeenAt: string;
  /** Last event held of it. */
  acked: number;
  /** Ids of the live workloads there. */
  workloads: string[];
}

/** A workload as the API tells it: never a secret, only the names of its secret variables. */
export interface WorkloadView extends Detail {
  id: string;
  generation: number;
  state: PlacementState;
  wanted: "run" | "stopped";
  node?: string;
  nodeName?: string;
  gpus: string[];
  progress?: { currentBytes: number; totalBytes: number };
  createdAt: string;
  updatedAt: string;
  endedAt?: string;
  spec: OpenSpec;
}

export function nodeView(record: NodeRecord, from: { database: CoordinatorDatabase; schedule: Schedule }): NodeView {
  const { type: _type, state, images: _images, ...advertised } = record.advertisement ?? {};
  const { advertisement: _advertisement, ...own } = record;
  const connected = from.schedule.sessions.has(record.id);
  const problems = [...(record.advertisement?.problems ?? []), ...from.schedule.problemsOf(record.id)];
  const replaces = from.database.keys.before(record.id);
  return {
    ...own,
    ...(replaces.length > 0 && { replaces }),
    connected,
    state: record.barred !== undefined ? "barred" : connected ? (state ?? "available") : "offline",
    ...advertised,
    ...(problems.length > 0 && { problems }),
    workloads: from.database.workloads.placed(record.id).map((workload) => workload.id),
  };
}

export function workloadView(
  record: WorkloadRecord,
  from: { database: CoordinatorDatabase; schedule: Schedule },
): WorkloadView {
  const { detail, spec, ...own } = record;
  const session = record.node === undefined ? undefined : from.schedule.sessions.get(record.node);
  const name =
    session?.hello?.node.name ?? (record.node === undefined ? undefined : from.database.node(record.node)?.name);
  const progress = record.state === "pulling" ? session?.progress.get(record.id) : undefined;
  return {
    ...own,
    ...detail,
    ...from.schedule.standing(record),
    ...(name !== undefined && { nodeName: name }),
    ...(progress !== undefined && {
      progress: { currentBytes: progress.currentBytes, totalBytes: progress.totalBytes },
    }),
    spec,
  };
}
