import type { DatabaseSync } from "node:sqlite";
import { UsageEvent } from "../protocol/event.ts";

/** How much of events is kept for a coordinator that does not take them. */
export interface EventLimits {
  events: number;
  bytes: number;
}

export const EVENT_LIMITS: EventLimits = { events: 100_000, bytes: 64 * 1024 * 1024 };

/** Where a limit is reached, so much is made free at once: bounding is for the long absence, not for every event. */
const KEEP_SHARE = 0.9;

/** Made of several interim records of a generation; signed. */
export type FoldUsage = (records: readonly UsageEvent[]) => UsageEvent;

/** A part of a row's body; NULL where a damaged disk has left no JSON, which SQLite would refuse the whole statement for. */
const part = (name: string) => `CASE WHEN json_valid(body) THEN body ->> '${name}' END`;
const KIND = part("kind");

/** What goes where there is no room, first things first: what tells how it ended goes last. */
const CLASSES: readonly { name: string; where: string }[] = [
  { name: "events that cannot be read", where: "NOT json_valid(body)" },
  { name: "pressure and health on the way", where: `${KIND} IN ('pressure', 'gpuHealth')` },
  { name: "states of the node", where: `${KIND} = 'node'` },
  {
    name: "states of workloads on their way",
    where: `${KIND} = 'workload' AND ${part("state")} IN ('accepted', 'pulling', 'starting', 'running', 'stopping')`,
  },
  { name: "preemptions", where: `${KIND} = 'preemption'` },
  { name: "usage records", where: `${KIND} = 'usage'` },
  { name: "ends of workloads", where: `${KIND} = 'workload'` },
];

/** A row that stands for `span` events from its own number on. */
export interface GapRow {
  kind: "gap";
  span: number;
  reason: string;
}

/** 1 for an event, 0 for a gap: as a gap stands between two that stay, there are at most as many again. */
export const IS_EVENT = `body NOT LIKE '{"kind":"gap"%'`;

/** How much the log holds now. */
export function sizeOf(db: DatabaseSync): EventLimits {
  const row = db
    .prepare(`SELECT coalesce(sum(${IS_EVENT}), 0) AS events, coalesce(sum(length(body)), 0) AS bytes FROM events`)
    .get();
  return { events: Number(row?.events), bytes: Number(row?.bytes) };
}

/**
 * Within a transaction: brings the log below its limits. Interim usage behind event `foldAfter` is folded, so that the bill stays whole;
 * then whole classes go, the oldest of each first. What goes leaves a gap that says what it was.
 */
export function bound(
  db: DatabaseSync,
  limits: EventLimits,
  { foldAfter, fold }: { foldAfter: number; fold: FoldUsage | undefined },
): void {
  const target = { events: limits.events * KEEP_SHARE, bytes: limits.bytes * KEEP_SHARE };
  const isBelow = () => {
    const { events, bytes } = sizeOf(db);
    return events <= target.events && bytes <= target.bytes;
  };
  if (fold !== undefined) {
    foldInterim(db, foldAfter, fold);
    mergeGaps(db);
  }
  for (const { name, where } of CLASSES) {
    if (isBelow()) return;
    const rows = db.prepare(`SELECT seq, length(body) AS bytes FROM events WHERE ${where} ORDER BY seq`).all();
    // A class goes in slices: neighbours become one gap, and only that makes fewer rows.
    const slice = Math.max(1, Math.ceil(rows.length / 10));
    for (let from = 0; from < rows.length && !isBelow(); from += slice) {
      const reason = `there was no room for more events on the node's disk: ${name} went`;
      for (const row of rows.slice(from, from + slice)) makeGap(db, Number(row.seq), reason);
      mergeGaps(db);
    }
  }
}

function foldInterim(db: DatabaseSync, after: number, fold: FoldUsage): void {
  const rows = db
    .prepare(`SELECT seq, body FROM events WHERE seq > ? AND ${KIND} = 'usage' AND NOT ${part("final")} ORDER BY seq`)
    .all(after);
  const groups = new Map<string, { seq: number; record: UsageEvent }[]>();
  for (const { seq, body } of rows) {
    const record = UsageEvent.safeParse(JSON.parse(String(body)));
    if (!record.success) continue;
    const key = `${record.data.workload}#${record.data.generation}`;
    const group = groups.get(key) ?? [];
    groups.set(key, group);
    group.push({ seq: Number(seq), record: record.data });
  }
  const update = db.prepare("UPDATE events SET body = ? WHERE seq = ?");
  for (const group of groups.values()) {
    const last = group.at(-1);
    if (last === undefined || group.length < 2) continue;
    update.run(JSON.stringify(fold(group.map(({ record }) => record))), last.seq);
    for (const { seq } of group.slice(0, -1)) makeGap(db, seq, `folded into the usage record of event ${last.seq}`);
  }
}

function makeGap(db: DatabaseSync, seq: number, reason: string): void {
  const gap: GapRow = { kind: "gap", span: 1, reason };
  db.prepare("UPDATE events SET body = ? WHERE seq = ?").run(JSON.stringify(gap), seq);
}

/** Gaps that touch become one. */
function mergeGaps(db: DatabaseSync): void {
  const rows = db.prepare(`SELECT seq, body FROM events WHERE ${KIND} = 'gap' ORDER BY seq`).all();
  const update = db.prepare("UPDATE events SET body = ? WHERE seq = ?");
  const remove = db.prepare("DELETE FROM events WHERE seq = ?");
  let open: { seq: number; gap: GapRow; isChanged: boolean } | undefined;
  const close = () => {
    if (open?.isChanged) update.run(JSON.stringify(open.gap), open.seq);
  };
  for (const row of rows) {
    const seq = Number(row.seq);
    const { span, reason: own } = gapOf(seq, JSON.parse(String(row.body)));
    if (open !== undefined && open.seq + open.gap.span === seq) {
      const reason = open.gap.reason.includes(own) ? open.gap.reason : joined(open.gap.reason, own);
      open = { seq: open.seq, gap: { kind: "gap", span: open.gap.span + span, reason }, isChanged: true };
      remove.run(seq);
    } else {
      close();
      open = { seq, gap: { kind: "gap", span, reason: own }, isChanged: false };
    }
  }
  close();
}

/** The gap at `seq` as its row has it; one whose span is none, or leads beyond what JSON carries, stands for itself alone. */
export function gapOf(seq: number, row: Partial<GapRow>): GapRow {
  const { span = 1, reason } = row;
  const fits = Number.isSafeInteger(span) && span >= 1 && Number.isSafeInteger(seq + span);
  return { kind: "gap", span: fits ? span : 1, reason: typeof reason === "string" ? reason : "" };
}

/** A gap of many kinds says so, and no more than fits. */
function joined(a: string, b: string): string {
  const both = `${a}; ${b}`;
  return both.length <= 400 ? both : a;
}
