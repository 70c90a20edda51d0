import * as z from "zod";
import { bodyOf, type CloudNotices, jsonOf, type MetadataClient, type Notice } from "./metadata.ts";

/**
 * Azure ("Scheduled Events for Linux VMs", "Azure Instance Metadata Service"). Least notice: Preempt 30 s, Redeploy 10 min, Reboot and Freeze
 * 15 min, Terminate 5 to 15 min as the owner has set it. `NotBefore` is empty once an event has started; one that is over or was called off is no
 * longer listed. Events of a whole availability set or scale set are told to all its machines. We never approve an event: that would
 * make it come sooner.
 */
export const AZURE_URL = "http://169.254.169.254";

const EVENTS = "/metadata/scheduledevents?api-version=2020-07-01";
const NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text";
const HEADERS = { Metadata: "true" };

/** The first request of a machine turns the service on, and may take two minutes. */
const FIRST_TIMEOUT_MS = 120_000;
/** An event that should have begun so long ago and has not is none. */
const PAST_MS = 10 * 60_000;

/** What befalls the machine, by `EventType`; others that may be added are left alone. */
const EVENT_TYPES: ReadonlyMap<string, { work: Notice["work"]; what: string }> = new Map([
  ["Preempt", { work: "stop_in_time", what: "takes this spot machine" }],
  ["Terminate", { work: "stop_in_time", what: "deletes this machine" }],
  ["Reboot", { work: "stop_in_time", what: "reboots this machine" }],
  ["Redeploy", { work: "stop_in_time", what: "moves this machine to another host" }],
  ["Freeze", { work: "warn", what: "freezes this machine for some seconds" }],
]);

/** RFC 1123: "Mon, 19 Sep 2016 18:29:47 GMT". */
const NotBefore = z
  .string()
  .regex(/^[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/)
  .transform((text) => Date.parse(text))
  .pipe(z.number());

const Events = z.object({
  /** Grows with every change of the list. The list alone decides here: after a move to another host the count may begin anew. */
  DocumentIncarnation: z.int(),
  Events: z.array(
    z.object({
      EventId: z.string().min(1).max(256),
      EventType: z.string(),
      Resources: z.array(z.string()).optional(),
      EventStatus: z.string().optional(),
      NotBefore: z.union([z.literal("").transform(() => undefined), NotBefore]).nullish(),
    }),
  ),
});
type Event = z.infer<typeof Events>["Events"][number];

export function azureNotices(client: MetadataClient, firstTimeoutMs: number = FIRST_TIMEOUT_MS): CloudNotices {
  let name: string | undefined;
  let hasAnswered = false;

  /** Where the name cannot be known, every event is ours. */
  const nameOf = async (signal: AbortSignal): Promise<string | undefined> => {
    try {
      const { status, body } = await client.get(NAME, { headers: HEADERS }, signal);
      return status === 200 && /^[\w.-]{1,128}$/.test(body.trim()) ? body.trim().toLowerCase() : undefined;
    } catch {
      return undefined;
    }
  };

  return {
    intervalMs: 5_000,
    async read(now, signal) {
      const ask = { headers: HEADERS, ...(!hasAnswered && { timeoutMs: firstTimeoutMs }) };
      const body = bodyOf(await client.get(EVENTS, ask, signal), EVENTS);
      hasAnswered = true;
      const { Events: events } = jsonOf(body, EVENTS, Events);
      // Asked for while all is calm, so that it is known when it matters.
      name ??= await nameOf(signal);
      return events.filter((event) => concerns(event, name)).flatMap((event) => noticeOf(event, now));
    },
  };
}

function concerns({ Resources: resources = [] }: Event, name: string | undefined): boolean {
  return name === undefined || resources.length === 0 || resources.some((resource) => resource.toLowerCase() === name);
}

function noticeOf({ EventId: id, EventType: type, EventStatus: status, NotBefore: at }: Event, now: number): Notice[] {
  const known = EVENT_TYPES.get(type);
  if (known === undefined) return [];
  const { work, what } = known;
  const hasStarted = status === "Started" || typeof at !== "number";
  if (!hasStarted && at < now - PAST_MS) return [];
  const when = hasStarted ? "now" : `at ${new Date(at).toUTCString()}`;
  return [
    {
      key: `${id} ${hasStarted ? "started" : at}`,
      work: hasStarted && work === "stop_in_time" ? "stop" : work,
      ...(!hasStarted && { at }),
      message: `Azure ${what} ${when} (${type})`,
    },
  ];
}
