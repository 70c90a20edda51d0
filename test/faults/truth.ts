import type { DurableEvent } from "../../src/protocol/event.ts";

/** What must hold after any fault, judged by what the coordinator holds alone. */

/** An event as the coordinator's API tells it. */
export type HeldEvent = DurableEvent & { node: string; position: number };

const ORDER = ["accepted", "pulling", "starting", "running", "stopping"];
const ENDS = new Set(["succeeded", "failed", "stopped", "preempted", "rejected", "lost"]);

/** All events the coordinator holds, in the order it took them in. */
export async function heldEvents(apiUrl: string): Promise<HeldEvent[]> {
  const text = await (await fetch(`${apiUrl}/api/v1/events`)).text();
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as HeldEvent);
}

/** Every way in which the events contradict what gpunode promises; [] is what a test wants to see. */
export function contradictions(events: readonly HeldEvent[], { allEnded }: { allEnded: boolean }): string[] {
  return [
    ...holesOf(events),
    ...livesOf(events, allEnded),
    ...sharedGpusOf(events),
    ...usageOf(events, allEnded),
    ...preemptionsOf(events),
  ];
}

/** `seq` of each node from 1 on without a hole; a `gap` may stand for those it names. */
function holesOf(events: readonly HeldEvent[]): string[] {
  const wrong: string[] = [];
  for (const [node, own] of byNode(events)) {
    let next = 1;
    for (const event of own) {
      if (event.seq !== next) wrong.push(`node ${node}: event ${event.seq} where ${next} was due`);
      next = (event.kind === "gap" ? Math.max(event.seq, event.toSeq) : event.seq) + 1;
    }
  }
  return wrong;
}

/** States only move forward, and each generation ends exactly once. */
function livesOf(events: readonly HeldEvent[], allEnded: boolean): string[] {
  const wrong: string[] = [];
  const last = new Map<string, string>();
  for (const event of events) {
    if (event.kind !== "workload") continue;
    const key = `${event.workload}#${event.generation}`;
    const before = last.get(key);
    if (before !== undefined && ENDS.has(before)) wrong.push(`${key}: ${event.state} after its end ${before}`);
    else if (before !== undefined && !ENDS.has(event.state) && ORDER.indexOf(event.state) < ORDER.indexOf(before)) {
      wrong.push(`${key}: ${event.state} after ${before}`);
    }
    last.set(key, event.state);
  }
  if (allEnded) {
    for (const [key, state] of last) if (!ENDS.has(state)) wrong.push(`${key} has not ended: ${state}`);
  }
  return wrong;
}

/** A GPU is held by one workload at a time: from `running` to the end. */
function sharedGpusOf(events: readonly HeldEvent[]): string[] {
  const wrong: string[] = [];
  const holders = new Map<string, string>();
  for (const event of events) {
    if (event.kind !== "workload") continue;
    const key = `${event.workload}#${event.generation}`;
    for (const gpu of event.gpus ?? []) {
      const place = `${event.node}/${gpu}`;
      const holder = holders.get(place);
      if (ENDS.has(event.state)) {
        if (holder === key) holders.delete(place);
      } else if (event.state === "running" || event.state === "stopping") {
        if (holder !== undefined && holder !== key) wrong.push(`${gpu}: ${key} runs while ${holder} does`);
        holders.set(place, key);
      }
    }
  }
  return wrong;
}

/** Usage of a generation: one interval after the other, the last one final, no GPU-second too many or too few. */
function usageOf(events: readonly HeldEvent[], allEnded: boolean): string[] {
  const wrong: string[] = [];
  const last = new Map<string, { to: string; final: boolean }>();
  for (const event of events) {
    if (event.kind !== "usage") continue;
    const key = `${event.workload}#${event.generation}`;
    const before = last.get(key);
    if (before?.final === true) wrong.push(`${key}: usage after its final record`);
    if (before !== undefined && before.to !== event.from)
      wrong.push(`${key}: usage from ${event.from} after ${before.to}`);
    const seconds = (Date.parse(event.to) - Date.parse(event.from)) / 1000;
    if (seconds < 0) wrong.push(`${key}: an interval that ends before it begins`);
    if (Math.abs(event.gpuSeconds - seconds * event.gpus.length) > 0.01) {
      wrong.push(`${key}: ${event.gpuSeconds} GPU-seconds for ${seconds} s on ${event.gpus.length} GPUs`);
    }
    last.set(key, { to: event.to, final: event.final });
  }
  if (!allEnded) return wrong;
  const ran = new Set(
    events.flatMap((event) =>
      event.kind === "workload" && event.state === "running" ? [`${event.workload}#${event.generation}`] : [],
    ),
  );
  // Of what a node has lost its memory nobody can tell what it used.
  for (const event of events) {
    if (event.kind === "workload" && event.state === "lost") ran.delete(`${event.workload}#${event.generation}`);
  }
  for (const key of ran) if (last.get(key)?.final !== true) wrong.push(`${key}: it ran, and has no final usage`);
  return wrong;
}

/** A preemption that finished was noticed before. */
function preemptionsOf(events: readonly HeldEvent[]): string[] {
  const noticed = new Set<string>();
  const wrong: string[] = [];
  for (const event of events) {
    if (event.kind !== "preemption") continue;
    for (const workload of event.workloads) {
      if (event.phase === "notice") noticed.add(workload);
      else if (event.phase === "finished" && !noticed.has(workload)) {
        wrong.push(`${workload}: a preemption finished without notice`);
      }
    }
  }
  return wrong;
}

function byNode(events: readonly HeldEvent[]): Map<string, HeldEvent[]> {
  const nodes = new Map<string, HeldEvent[]>();
  for (const event of events) nodes.set(event.node, [...(nodes.get(event.node) ?? []), event]);
  return nodes;
}
