import * as z from "zod";
import * as agent from "./agent-frames.ts";
import * as coordinator from "./coordinator-frames.ts";
import { ErrorFrame } from "./error-frame.ts";
import { DurableEvent, EventBody } from "./event.ts";
import { Gpu, GpuTelemetry } from "./gpu.ts";
import { PROTOCOL } from "./limits.ts";
import { Workload } from "./workload.ts";

/** Names under `$defs`, in the order a reader of `docs/protocol.md` meets them. */
const NAMED = {
  agentFrame: agent.AgentFrame,
  coordinatorFrame: coordinator.CoordinatorFrame,
  challenge: coordinator.Challenge,
  hello: agent.Hello,
  welcome: coordinator.Welcome,
  reject: coordinator.Reject,
  advertise: agent.Advertise,
  sync: coordinator.Sync,
  telemetry: agent.Telemetry,
  events: agent.Events,
  ack: coordinator.Ack,
  reply: agent.Reply,
  progress: agent.Progress,
  log: agent.Log,
  logEnd: agent.LogEnd,
  error: ErrorFrame,
  assign: coordinator.Assign,
  release: coordinator.Release,
  preempt: coordinator.Preempt,
  drain: coordinator.Drain,
  resume: coordinator.Resume,
  prefetch: coordinator.Prefetch,
  configure: coordinator.Configure,
  logs: coordinator.Logs,
  logsStop: coordinator.LogsStop,
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
