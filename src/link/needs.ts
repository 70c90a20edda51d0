import type { Advertise, Hello, Progress, Telemetry } from "../protocol/agent-frames.ts";
import type { Command, Logs, Welcome } from "../protocol/coordinator-frames.ts";
import type { DurableEvent } from "../protocol/event.ts";
import type { Identity } from "./identity.ts";

/** What the link needs of the rest of the agent: the doors that `agent.ts` fills. */

/** The durable events of this node. Every method is synchronous; one that throws ends the session, not the link. */
export interface EventLog {
  /** First event held; beyond `newest` where all have been acked, 0 where there never was one. */
  readonly oldest: number;
  /** Last event written; 0 where there never was one. */
  readonly newest: number;
  /** Events behind `seq`, in order; one at least where there is one, else bounded by count and bytes of JSON. */
  after(seq: number, limitEvents: number, limitBytes: number): DurableEvent[];
  /** The coordinator holds all up to and with `seq`. */
  acked(seq: number): void;
  /** A session begins with a coordinator that holds all up to `acked`, which may be beyond this log. */
  resume(acked: number): void;
  /** Calls back after events were written. Returns the way to end it. */
  onAppend(listener: () => void): () => void;
}

/** Remembers over restarts which coordinators have welcomed which key of ours; they get no join token any more. */
export interface CoordinatorMemory {
  hasWelcomed(coordinator: string, nodeId: string): boolean;
  rememberWelcome(coordinator: string, nodeId: string): void;
}

/** An advertisement before the link numbers it. */
export type Advertisement = Omit<Advertise, "type" | "revision">;
/** A telemetry frame before the link adds how many samples it left out. */
export type Sample = Omit<Telemetry, "type" | "skipped">;
export type ProgressReport = Omit<Progress, "type">;
export type LogsCommand = ReturnType<(typeof Logs)["parse"]>;
/** Commands that the agent carries out; `logs` and `logsStop` are the link's own business. */
export type AgentCommand = Exclude<Command, { type: "logs" | "logsStop" }>;

/** A piece of output, cut anywhere, also within a character. */
export interface LogPiece {
  stream: "stdout" | "stderr";
  data: Uint8Array;
  /** RFC 3339. */
  at?: string;
}

export interface LinkDoors {
  identity: Identity;
  events: EventLog;
  memory: CoordinatorMemory;
  /** How the node introduces itself; asked anew for each session. */
  describeNode(): { node: Omit<Hello["node"], "id" | "publicKey">; workloads: Hello["workloads"] };
  /** What the node can do, now. */
  advertisement(): Advertisement;
  /** Lease and telemetry interval of the session that begins. */
  onWelcome(welcome: Welcome): void;
  /** The complete desired set, each entry unread. */
  onSync(workloads: readonly unknown[]): void;
  /**
   * Carries a command out; called in the order the commands came, without waiting for the one before. Resolving is
   * `ok`; a `GpunodeError` becomes the refusal; anything else is a bug and answered as `internal`, without its message.
   */
  onCommand(command: AgentCommand): void | Promise<void>;
  /** Output of a workload; ends when `signal` aborts. Throws `GpunodeError` where there is none. Read no faster than sent. */
  openLogs(command: LogsCommand, signal: AbortSignal): AsyncIterable<LogPiece>;
  /** A welcomed session is over. */
  onSessionEnd(): void;
  log: LinkLog;
}

/** The part of a pino logger the link uses: fields first, then the sentence. */
export interface LinkLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** How the link stands, for the owner's eyes. Times are milliseconds since the epoch. */
export interface LinkStatus {
  /** `refused`: the coordinator said no, and is asked again at `retryAt`. */
  state: "connecting" | "connected" | "waiting" | "refused";
  url: string;
  /** When it came into this state. */
  since: number;
  sessionId?: string;
  /** Why the last session or attempt ended; absent while all is well. */
  lastError?: string;
  /** When the coordinator was last heard in a welcomed session, a ping included, by the clock for silence; absent before the first. */
  lastFrameAt?: number;
  /** When a session with this key that was not ours last took the place of ours. */
  replacedAt?: number;
  retryAt?: number;
}

/** What went over the link since the agent's start. */
export interface LinkCounts {
  /** Sessions a coordinator has welcomed. */
  sessions: number;
  telemetrySent: number;
  /** Frames left out because the coordinator did not keep up. */
  telemetrySkipped: number;
}
