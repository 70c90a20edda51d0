import { randomUUID } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import * as z from "zod";
import { Advertise, type Hello } from "../protocol/agent-frames.ts";
import { nodeIdOf } from "../protocol/identity.ts";
import { openDatabase, transaction } from "../store/sqlite.ts";
import type { Hindrance } from "./handshake.ts";
import type { IncomingEvent } from "./incoming-events.ts";
import { JoinTokens } from "./join-tokens.ts";
import { NodeKeys } from "./node-keys.ts";
import type { Sealer } from "./secrets.ts";
import { type Effect, WorkloadTable } from "./workload-table.ts";

const MIGRATIONS = [
  `CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
   CREATE TABLE tokens (hash TEXT PRIMARY KEY, uses_left INTEGER) STRICT;
   CREATE TABLE nodes (
     id TEXT PRIMARY KEY, public_key TEXT NOT NULL, name TEXT NOT NULL, labels TEXT NOT NULL, boot_id TEXT NOT NULL,
     agent_version TEXT NOT NULL, advertisement TEXT, acked INTEGER NOT NULL, first_seen_at TEXT NOT NULL,
     last_seen_at TEXT NOT NULL) STRICT;
   CREATE TABLE workloads (
     id TEXT PRIMARY KEY, generation INTEGER NOT NULL, spec TEXT NOT NULL, secrets BLOB, wanted TEXT NOT NULL,
     node TEXT REFERENCES nodes (id), state TEXT NOT NULL, gpus TEXT NOT NULL DEFAULT '[]',
     detail TEXT NOT NULL DEFAULT '{}', created_at TEXT NOT NULL, updated_at TEXT NOT NULL, ended_at TEXT) STRICT;
   CREATE INDEX workloads_live ON workloads (node) WHERE ended_at IS NULL;
   CREATE TABLE events (
     position INTEGER PRIMARY KEY AUTOINCREMENT, node TEXT NOT NULL REFERENCES nodes (id), seq INTEGER NOT NULL,
     kind TEXT NOT NULL, workload TEXT, body TEXT NOT NULL, UNIQUE (node, seq)) STRICT;
   CREATE INDEX events_of_workload ON events (workload, position) WHERE workload IS NOT NULL;
   CREATE INDEX events_of_preemption ON events (position) WHERE kind = 'preemption';`,
  `ALTER TABLE tokens ADD COLUMN expires_at TEXT;
   CREATE TABLE retired_keys (
     id TEXT PRIMARY KEY, public_key TEXT NOT NULL, node TEXT NOT NULL REFERENCES nodes (id), retired_at TEXT NOT NULL) STRICT;`,
  `ALTER TABLE nodes ADD COLUMN barred_at TEXT;
   ALTER TABLE nodes ADD COLUMN barred_because TEXT;`,
];

/** A node as its last sessions told it. */
export interface NodeRecord {
  id: string;
  /** Raw 32-byte Ed25519 key, base64url: what it signs with. */
  publicKey: string;
  name: string;
  labels: Record<string, string>;
  bootId: string;
  agentVersion: string;
  advertisement?: Advertise;
  /** Last event held of it, with all before. */
  acked: number;
  firstSeenAt: string;
  lastSeenAt: string;
  /** The operator keeps it out. */
  barred?: { at: string; reason?: string };
}

/** An event in the order in which the coordinator took it; `position` grows over all nodes. */
export interface StoredEvent {
  position: number;
  node: string;
  event: Record<string, unknown>;
}

/** A node that is let in, or why not. */
export type Admission =
  | {
      ok: true;
      /** By which it is known from now on. */
      nodeId: string;
      publicKey: string;
      /** Last event held, or the one before the oldest the node can still send, where that is later. */
      acked: number;
      isNew: boolean;
      /** Events that another database acked, and this one never saw. */
      unseen: number;
      /** The id it came with, where that is its old key's. */
      replaces?: string;
    }
  | { ok: false; why: Hindrance };

export interface StoreResult {
  /** Last event held now; what goes into `ack`. */
  acked: number;
  stored: number;
  /** The first `seq` that could not be taken because those before it are missing. */
  beyondHole?: number;
  effects: { workload: string; effect: Effect; message?: string }[];
}

const NodeRow = z.object({
  id: z.string(),
  public_key: z.string(),
  name: z.string(),
  labels: z.string(),
  boot_id: z.string(),
  agent_version: z.string(),
  advertisement: z.string().nullable(),
  acked: z.number(),
  first_seen_at: z.string(),
  last_seen_at: z.string(),
  barred_at: z.string().nullable(),
  barred_because: z.string().nullable(),
});
const EventRow = z.object({ position: z.number(), node: z.string(), body: z.string() });

/** All the coordinator must not forget, in one SQLite file. What a method returned from is on the disk. */
export class CoordinatorDatabase implements Disposable {
  readonly workloads: WorkloadTable;
  readonly tokens: JoinTokens;
  readonly keys: NodeKeys;
  readonly #db: DatabaseSync;
  readonly #nowIso: () => string;

  /** Throws where the file can't be opened or was written by a newer version. */
  constructor(path: string, options: { sealer: Sealer; now?: () => number }) {
    const { now = Date.now } = options;
    this.#nowIso = () => new Date(now()).toISOString();
    this.#db = openDatabase(path, MIGRATIONS);
    this.tokens = new JoinTokens(this.#db, now);
    this.keys = new NodeKeys(this.#db);
    this.workloads = new WorkloadTable(this.#db, options.sealer, this.#nowIso);
  }

  /** Told to agents in `challenge`; the same for the life of the file. */
  coordinatorId(): string {
    this.#db.prepare("INSERT OR IGNORE INTO meta (key, value) VALUES ('coordinatorId', ?)").run(randomUUID());
    return String(this.#db.prepare("SELECT value FROM meta WHERE key = 'coordinatorId'").get()?.value);
  }

  /**
   * Admits a node whose signatures have been verified: a key that is known, or brings a token that admits (and is counted
   * down), or any with `open`. One that brings a new key is its new key's from then on, with all that is kept of it; said
   * again, it says the same.
   */
  admit(hello: Hello, options: { open: boolean }): Admission {
    const { node, joinToken, events } = hello;
    const key = keyAskedFor(hello);
    return transaction(this.#db, () => {
      const successor = this.keys.successor(node.id);
      if (successor !== undefined && successor !== key?.id)
        return { ok: false, why: { kind: "replaced", by: successor } };
      const isMoved = successor !== undefined;
      if (key !== undefined && !isMoved && (this.node(key.id) ?? this.keys.successor(key.id)) !== undefined) {
        return { ok: false, why: { kind: "taken", id: key.id } };
      }
      const known = this.node(successor ?? node.id);
      if (known?.barred !== undefined) return { ok: false, why: { kind: "barred", ...known.barred } };
      const isLetIn = known !== undefined || options.open || (joinToken !== undefined && this.tokens.spend(joinToken));
      if (!isLetIn) return { ok: false, why: { kind: "unknown" } };
      const held = known?.acked ?? 0;
      const acked = Math.max(held, events.oldest - 1);
      const now = this.#nowIso();
      this.#db
        .prepare(
          `INSERT INTO nodes (id, public_key, name, labels, boot_id, agent_version, acked, first_seen_at, last_seen_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (id) DO UPDATE SET name = excluded.name, labels = excluded.labels, boot_id = excluded.boot_id,
             agent_version = excluded.agent_version, acked = excluded.acked, last_seen_at = excluded.last_seen_at`,
        )
        .run(
          successor ?? node.id,
          node.publicKey,
          node.name,
          JSON.stringify(node.labels),
          node.bootId,
          node.agentVersion,
          acked,
          now,
          now,
        );
      if (key !== undefined && !isMoved) this.keys.replace(node, key, now);
      const { id: nodeId, publicKey } = key ?? node;
      const replaces = key === undefined ? {} : { replaces: node.id };
      return { ok: true, nodeId, publicKey, acked, isNew: known === undefined, unseen: acked - held, ...replaces };
    });
  }

  advertise(node: string, advertisement: Advertise): void {
    this.#db
      .prepare("UPDATE nodes SET advertisement = ?, last_seen_at = ? WHERE id = ?")
      .run(JSON.stringify(advertisement), this.#nowIso(), node);
  }

  seen(node: string): void {
    this.#db.prepare("UPDATE nodes SET last_seen_at = ? WHERE id = ?").run(this.#nowIso(), node);
  }

  /** Keeps a node's key out from now on, whatever token it brings, or lets it in again. */
  bar(node: string, barred: { reason?: string } | false): void {
    this.#db
      .prepare("UPDATE nodes SET barred_at = ?, barred_because = ? WHERE id = ?")
      .run(barred === false ? null : this.#nowIso(), (barred === false ? undefined : barred.reason) ?? null, node);
  }

  node(id: string): NodeRecord | undefined {
    const row = this.#db.prepare("SELECT * FROM nodes WHERE id = ?").get(id);
    return row === undefined ? undefined : nodeOf(NodeRow.parse(row));
  }

  nodes(): NodeRecord[] {
    const rows = this.#db.prepare("SELECT * FROM nodes ORDER BY name, id").all();
    return rows.map((row) => nodeOf(NodeRow.parse(row)));
  }

  /**
   * Takes a node's events: stores those that are new and come next, lets each have its effect, and moves `acked`, all in
   * one transaction. One told before is left out, so each takes effect once however often it comes. At a hole it stops.
   */
  storeEvents(node: string, events: readonly IncomingEvent[]): StoreResult {
    return transaction(this.#db, () => {
      const result: StoreResult = { acked: this.#acked(node), stored: 0, effects: [] };
      const insert = this.#db.prepare("INSERT INTO events (node, seq, kind, workload, body) VALUES (?, ?, ?, ?, ?)");
      for (const event of events) {
        if (event.seq <= result.acked) continue;
        const acked = ackedAfter(result.acked, event);
        if (acked === undefined) {
          result.beyondHole = event.seq;
          break;
        }
        const { body } = event;
        const workload = body?.kind === "workload" || body?.kind === "usage" ? body.workload : null;
        insert.run(node, event.seq, event.kind, workload, JSON.stringify(event.raw));
        result.acked = acked;
        result.stored += 1;
        if (body?.kind !== "workload") continue;
        const effect = this.workloads.advance(node, body);
        result.effects.push({
          workload: body.workload,
          effect,
          ...(body.message !== undefined && { message: body.message }),
        });
      }
      this.#db
        .prepare("UPDATE nodes SET acked = ?, last_seen_at = ? WHERE id = ?")
        .run(result.acked, this.#nowIso(), node);
      return result;
    });
  }

  #acked(node: string): number {
    return Number(this.#db.prepare("SELECT acked FROM nodes WHERE id = ?").get(node)?.acked ?? 0);
  }

  /** Events of all nodes after `position`, in the order taken. */
  eventsAfter(position: number, limit: number): StoredEvent[] {
    const rows = this.#db
      .prepare("SELECT position, node, body FROM events WHERE position > ? ORDER BY position LIMIT ?")
      .all(position, limit);
    return rows.map(eventOf);
  }

  /** The last `limit` events that speak of a workload, oldest first. */
  eventsOf(workload: string, limit: number): StoredEvent[] {
    const rows = this.#db
      .prepare(
        `SELECT position, node, body FROM events WHERE workload = ?1
         UNION SELECT position, node, body FROM events WHERE kind = 'preemption'
           AND EXISTS (SELECT 1 FROM json_each(events.body, '$.workloads') WHERE value = ?1)
         ORDER BY position DESC LIMIT ?2`,
      )
      .all(workload, limit);
    return rows.map(eventOf).reverse();
  }

  [Symbol.dispose](): void {
    this.#db.close();
  }
}

/**
 * Where the log stands once `event` is taken; undefined where events before it are missing. Only a `gap` may jump: it
 * stands for all from `fromSeq` to `toSeq`.
 */
function ackedAfter(acked: number, event: IncomingEvent): number | undefined {
  const { seq, body } = event;
  if (body?.kind === "gap" && body.fromSeq <= acked + 1 && seq <= body.toSeq + 1) return Math.max(seq, body.toSeq);
  return seq === acked + 1 ? seq : undefined;
}

/** The key that is to take the place of the one `hello` is signed with. */
function keyAskedFor({ rotation }: Hello): { id: string; publicKey: string } | undefined {
  if (rotation === undefined) return undefined;
  const { publicKey } = rotation;
  return { id: nodeIdOf(Buffer.from(publicKey, "base64url")), publicKey };
}

function nodeOf(row: z.infer<typeof NodeRow>): NodeRecord {
  return {
    id: row.id,
    publicKey: row.public_key,
    name: row.name,
    labels: z.record(z.string(), z.string()).parse(JSON.parse(row.labels)),
    bootId: row.boot_id,
    agentVersion: row.agent_version,
    ...(row.advertisement !== null && { advertisement: Advertise.parse(JSON.parse(row.advertisement)) }),
    acked: row.acked,
    firstSeenAt: row.first_seen_at,
    lastSeenAt: row.last_seen_at,
    ...(row.barred_at !== null && {
      barred: { at: row.barred_at, ...(row.barred_because !== null && { reason: row.barred_because }) },
    }),
  };
}

function eventOf(row: unknown): StoredEvent {
  const { position, node, body } = EventRow.parse(row);
  return { position, node, event: z.record(z.string(), z.unknown()).parse(JSON.parse(body)) };
}
