import type { FakeSession, Frame } from "../support/fake-coordinator.ts";

/** A workload as it goes over the wire: works until it is told to end, and then ends at once. */
export function job(
  id: string,
  changes: { image: string; generation?: number; gpus?: object; command?: string[]; stop?: object },
): object {
  const script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
  return { id, generation: 1, command: ["sh", "-c", script], stop: { graceSeconds: 5 }, ...changes };
}

/** Durable events of a workload that came in this session. */
export function eventsOf(session: FakeSession, workload: string): Frame[] {
  return session.frames
    .filter(({ type }) => type === "events")
    .flatMap(({ events }) => events as Frame[])
    .filter((event) => event.kind === "workload" && event.workload === workload);
}

/** The first event of a workload with these fields, when it comes. */
export function told(session: FakeSession, fields: { workload: string; [field: string]: unknown }): Promise<Frame> {
  const isIt = (event: Frame) => Object.entries(fields).every(([field, value]) => event[field] === value);
  return session.until(() => eventsOf(session, fields.workload).find(isIt), JSON.stringify(fields), 20_000);
}
