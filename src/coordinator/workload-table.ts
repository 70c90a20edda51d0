import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import * as z from "zod";
import { WorkloadEvent } from "../protocol/event.ts";
import { Workload, type WorkloadState } from "../protocol/workload.ts";
import type { Sealer } from "./secrets.ts";
import { isEnd, mayFollow, PlacementState } from "./states.ts";

/** What follows when a node preempts it: its end, or its next generation as soon as there is room. The coordinator's own affair. */
export const OnPreempt = z.enum(["end", "requeue"]);
export type OnPreempt = z.infer<typeof OnPreempt>;

/** A workload without what must not be seen; the names of the secrets are told, not their values. */
export const OpenSpec = Workload.omit({ id: true, generation: true, registryAuth: true, secretEnv: true }).extend({
  secretEnvNames: z.array(z.string()),
  hasRegistryAuth: z.boolean(),
  onPreempt: OnPreempt.default("end"),
});
export type OpenSpec = z.infer<typeof OpenSpec>;

const Secrets = Workload.pick({ registryAuth: true, secretEnv: true });

/** What the node's events told of the present generation, besides its state. */
const Detail = WorkloadEvent.omit({ kind: true, workload: true, generation: true, state: true, gpus: true });
export type Detail = z.infer<typeof Detail>;

/** One workload as the database keeps it. */
export interface WorkloadRecord {
  id: string;
  generation: number;
  spec: OpenSpec;
  /** `stopped` once the operator released it. */
  wanted: "run" | "stopped";
  node?: string;
  state: PlacementState;
  /** UUIDs: those matching counted on, then those the node told. */
  gpus: string[];
  detail: Detail;
  createdAt: string;
  updatedAt: string;
  endedAt?: string;
}

/**
 * What an event did to its workload: nothing, a change, its end, or back to `pending` because its node rejected it, or preempted
 * what is to be resumed.
 */
export type Effect = "none" | "changed" | "ended" | "rejected" | "requeued";

const Row = z.object({
  id: z.string(),
  generation: z.number(),
  spec: z.string(),
  wanted: z.enum(["run", "stopped"]),
  node: z.string().nullable(),
  state: PlacementState,
  gpus: z.string(),
  detail: z.string(),
  created_at: z.string(),
  updated_at: z.string(),
  ended_at: z.string().nullable(),
});
const COLUMNS = "id, generation, spec, wanted, node, state, gpus, detail, created_at, updated_at, ended_at";

/** The `workloads` table: what is wanted, where it was put, how it stands. */
export class WorkloadTable {
  readonly #db: DatabaseSync;
  readonly #sealer: Sealer;
  readonly #nowIso: () => string;

  constructor(db: DatabaseSync, sealer: Sealer, nowIso: () => string) {
    this.#db = db;
    this.#sealer = sealer;
    this.#nowIso = nowIso;
  }

  /** Writes a new workload, or a new generation of one that ended. Secrets go in sealed. */
  put(workload: Workload, { onPreempt }: { onPreempt: OnPreempt }): void {
    const { id, generation, registryAuth, secretEnv, ...open } = workload;
    const spec: OpenSpec = {
      ...open,
      secretEnvNames: Object.keys(secretEnv),
      hasRegistryAuth: registryAuth !== undefined,
      onPreempt,
    };
    const secrets = JSON.stringify({ secretEnv, ...(registryAuth !== undefined && { registryAuth }) });
    const hasSecrets = spec.hasRegistryAuth || spec.secretEnvNames.length > 0;
    const now = this.#nowIso();
    this.#run(
      `INSERT INTO workloads (id, generation, spec, secrets, wanted, state, created_at, updated_at)
       VALUES (?, ?, ?, ?, 'run', 'pending', ?, ?)
       ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, spec = excluded.spec, secrets = excluded.secrets,
         wanted = 'run', node = NULL, state = 'pending', gpus = '[]', detail = '{}', created_at = excluded.created_at,
         updated_at = excluded.updated_at, ended_at = NULL`,
      [id, generation, JSON.stringify(spec), hasSecrets ? this.#sealer.seal(secrets, id) : null, now, now],
    );
  }

  get(id: string): WorkloadRecord | undefined {
    return this.#select("WHERE id = ?", [id])[0];
  }

  /** All, newest first, at most `limit`. */
  list(limit: number): WorkloadRecord[] {
    return this.#select("ORDER BY created_at DESC, id LIMIT ?", [limit]);
  }

  /** Those with a node that have not ended; of one node where it is named. */
  placed(node?: string): WorkloadRecord[] {
    const which = "WHERE ended_at IS NULL AND node IS NOT NULL";
    return node === undefined ? this.#select(which, []) : this.#select(`${which} AND node = ?`, [node]);
  }

  /** Those still without a node, in the order they are tried: priority, then age. */
  pending(): WorkloadRecord[] {
    return this.#select("WHERE ended_at IS NULL AND node IS NULL", []).sort(
      (a, b) => b.spec.priority - a.spec.priority || a.createdAt.localeCompare(b.createdAt),
    );
  }

  /** The workload as its node must get it, secrets and all. Throws where the secrets can't be read with this key. */
  full(record: WorkloadRecord): Workload {
    const { secretEnvNames: _names, hasRegistryAuth: _auth, onPreempt: _next, ...open } = record.spec;
    const sealed = this.#db.prepare("SELECT secrets FROM workloads WHERE id = ?").get(record.id)?.secrets;
    const secrets =
      sealed instanceof Uint8Array ? Secrets.parse(JSON.parse(this.#sealer.unseal(sealed, record.id))) : {};
    return Workload.parse({ ...open, ...secrets, id: record.id, generation: record.generation });
  }

  assign(id: string, node: string, gpus: readonly string[]): void {
    this.#run("UPDATE workloads SET node = ?, gpus = ?, state = 'assigned', updated_at = ? WHERE id = ?", [
      node,
      JSON.stringify(gpus),
      this.#nowIso(),
      id,
    ]);
  }

  /**
   * Takes it away from a node that won't have it, or no longer. The generation grows, so nothing that node still says can be mixed up.
   * Secrets and age stay: it goes on waiting where it stood.
   */
  unplace(id: string): void {
    this.#run(
      `UPDATE workloads SET node = NULL, gpus = '[]', state = 'pending', detail = '{}', generation = generation + 1,
       updated_at = ? WHERE id = ?`,
      [this.#nowIso(), id],
    );
  }

  /** The operator no longer wants it. */
  release(id: string): void {
    this.#run("UPDATE workloads SET wanted = 'stopped', updated_at = ? WHERE id = ?", [this.#nowIso(), id]);
  }

  /** Ends it by the coordinator's own word. Its secrets are forgotten. */
  end(id: string, state: "stopped" | "failed" | "lost", detail: Detail): void {
    const now = this.#nowIso();
    this.#run(
      "UPDATE workloads SET state = ?, detail = ?, secrets = NULL, wanted = 'stopped', updated_at = ?, ended_at = ? WHERE id = ?",
      [state, JSON.stringify(detail), now, now, id],
    );
  }

  /** Lets a node's event take effect, where it speaks of this generation and goes forward. */
  advance(node: string, event: WorkloadEvent): Effect {
    const record = this.get(event.workload);
    if (record === undefined || record.node !== node || record.generation !== event.generation) return "none";
    if (!mayFollow(record.state, event.state)) return "none";
    const goesOn = effectOfGoingOn(event.state, record.spec);
    if (goesOn !== undefined && record.wanted === "run") {
      this.unplace(record.id);
      return goesOn;
    }
    const { reason: _reason, message: _message, ...kept } = record.detail;
    const detail = { ...kept, ...Detail.parse(event) };
    const ended = isEnd(event.state);
    const now = this.#nowIso();
    this.#run(
      `UPDATE workloads SET state = ?, gpus = ?, detail = ?, updated_at = ?, ended_at = ?,
       secrets = CASE WHEN ? THEN NULL ELSE secrets END WHERE id = ?`,
      [
        event.state,
        JSON.stringify(event.gpus ?? record.gpus),
        JSON.stringify(detail),
        now,
        ended ? now : null,
        ended ? 1 : 0,
        record.id,
      ],
    );
    return ended ? "ended" : "changed";
  }

  #select(rest: string, values: SQLInputValue[]): WorkloadRecord[] {
    const rows = this.#db.prepare(`SELECT ${COLUMNS} FROM workloads ${rest}`).all(...values);
    return rows.map((row) => recordOf(Row.parse(row)));
  }

  #run(sql: string, values: SQLInputValue[]): void {
    this.#db.prepare(sql).run(...values);
  }
}

/** Ends of a generation that are none of the workload, while it is wanted. */
function effectOfGoingOn(state: WorkloadState, { onPreempt }: OpenSpec): "rejected" | "requeued" | undefined {
  if (state === "rejected") return "rejected";
  return state === "preempted" && onPreempt === "requeue" ? "requeued" : undefined;
}

function recordOf(row: z.infer<typeof Row>): WorkloadRecord {
  return {
    id: row.id,
    generation: row.generation,
    spec: OpenSpec.parse(JSON.parse(row.spec)),
    wanted: row.wanted,
    ...(row.node !== null && { node: row.node }),
    state: row.state,
    gpus: z.array(z.string()).parse(JSON.parse(row.gpus)),
    detail: Detail.parse(JSON.parse(row.detail)),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    ...(row.ended_at !== null && { endedAt: row.ended_at }),
  };
}
