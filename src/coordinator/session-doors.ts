import type { ReplyError } from "../protocol/agent-frames.ts";
import type { Command } from "../protocol/coordinator-frames.ts";
import type { Workload } from "../protocol/workload.ts";
import type { CoordinatorDatabase, StoreResult } from "./database.ts";
import type { Log } from "./log.ts";
import type { LogStream } from "./log-stream.ts";
import type { Session } from "./session.ts";

/** What a session tells the rest of the coordinator, and asks of it. */
export interface SessionDoors {
  /** Called before `welcome` is sent; an older session of the same node is closed here. */
  welcomed(session: Session): void;
  /** The complete desired set of the node, for `sync`. */
  desired(session: Session): Workload[];
  advertised(session: Session): void;
  stored(session: Session, result: StoreResult): void;
  closed(session: Session, why: { code: number; reason: string }): void;
  /** A session that was replaced by a newer one was alive all the same: two agents have the node's key. */
  outlived(session: Session): void;
}

export interface SessionSettings {
  database: CoordinatorDatabase;
  coordinatorId: string;
  hosts: { accepts(host: string | undefined): boolean; describe(): string };
  /** Admit any key without a token. */
  open: boolean;
  heartbeatSeconds: number;
  leaseSeconds: number;
  telemetryIntervalMs: number;
  handshakeTimeoutMs?: number;
  commandTimeoutMs: number;
  logStallMs: number;
  log: Log;
  now: () => number;
}

type WithoutId<T> = T extends { id: string } ? Omit<T, "id"> : never;
/** A command before the session gave it its id. */
export type CommandBody = WithoutId<Command>;

/** `refused`: the agent said no. `silent`: it said nothing in time. `gone`: it is not connected. */
export type CommandAnswer = { ok: true } | { ok: false; why: "refused" | "silent" | "gone"; error: ReplyError };
export type LogsAnswer =
  | { ok: true; stream: LogStream; stop(reason: string): void }
  | Extract<CommandAnswer, { ok: false }>;
