import * as z from "zod";
import { DurableEvent, EventBody } from "../protocol/event.ts";
import { check, type FrameProblem } from "../protocol/parse.ts";

/** An event as it came. `body` has an effect; an event of a kind this version does not know is stored all the same. */
export interface IncomingEvent {
  seq: number;
  kind: string;
  raw: object;
  body?: EventBody;
}

const Envelope = z.looseObject({ seq: z.int().min(1), kind: z.string(), at: z.string() });
const KNOWN_KINDS = new Set(EventBody.options.map((option) => String(option.shape.kind.value)));

/**
 * Reads the events of a frame up to the first that can't be used. One of an unknown kind is taken as it is: the contract
 * grows, and an older coordinator must not stop a newer agent's log.
 */
export function readEvents(value: unknown): { events: IncomingEvent[]; problem?: FrameProblem } {
  const events: IncomingEvent[] = [];
  const list = check(z.array(z.unknown()), value, "events");
  if (!list.ok) return { events, problem: list.problem };
  for (const [index, entry] of list.value.entries()) {
    const envelope = check(Envelope, entry, `events.${index}`);
    if (!envelope.ok) return { events, problem: envelope.problem };
    const { seq, kind } = envelope.value;
    if (!KNOWN_KINDS.has(kind)) {
      events.push({ seq, kind, raw: envelope.value });
      continue;
    }
    const event = check(DurableEvent, entry, `events.${index}`);
    if (!event.ok) return { events, problem: event.problem };
    events.push({ seq, kind, raw: envelope.value, body: event.value });
  }
  return { events };
}
