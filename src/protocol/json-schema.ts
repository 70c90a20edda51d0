import * as z from "zod";
import { DurableEvent, EventBody } from "./event.ts";
import * as frames from "./frames.ts";
import { Gpu, GpuTelemetry } from "./gpu.ts";
import { PROTOCOL } from "./limits.ts";
import { Workload } from "./workload.ts";

/** Names under `$defs`, in the order a reader of `docs/protocol.md` meets them. */
const NAMED = {
  agentFrame: frames.AgentFrame,
  coordinatorFrame: frames.CoordinatorFrame,
  challenge: frames.Challenge,
  hello: frames.Hello,
  welcome: frames.Welcome,
  reject: frames.Reject,
  advertise: frames.Advertise,
  sync: frames.Sync,
  telemetry: frames.Telemetry,
  events: frames.Events,
  ack: frames.Ack,
  reply: frames.Reply,
  progress: frames.Progress,
  log: frames.Log,
  logEnd: frames.LogEnd,
  error: frames.ErrorFrame,
  assign: frames.Assign,
  release: frames.Release,
  preempt: frames.Preempt,
  drain: frames.Drain,
  resume: frames.Resume,
  prefetch: frames.Prefetch,
  configure: frames.Configure,
  logs: frames.Logs,
  logsStop: frames.LogsStop,
  workload: Workload,
  gpu: Gpu,
  gpuTelemetry: GpuTelemetry,
  durableEvent: DurableEvent,
  eventBody: EventBody,
} as const;

/**
 * The wire contract as one JSON Schema (draft 2020-12): `$defs` holds every frame and the types within. It describes what
 * may be sent (fields with a default may be left out); unknown fields are ignored by both sides.
 */
export function protocolJsonSchema(): Record<string, unknown> {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(NAMED)) registry.add(schema, { id });
  const { schemas } = z.toJSONSchema(registry, { io: "input", uri: (id) => `#/$defs/${id}` });
  const defs = Object.fromEntries(
    Object.entries(schemas).map(([id, schema]) => {
      const { $schema: _schema, $id: _id, ...rest } = schema;
      return [id, rest];
    }),
  );
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: PROTOCOL,
    anyOf: [{ $ref: "#/$defs/agentFrame" }, { $ref: "#/$defs/coordinatorFrame" }],
    $defs: defs,
  };
}
