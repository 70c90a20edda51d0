import * as z from "zod";
import type { DurableEvent } from "../protocol/event.ts";

/** A moment worth seeing beside the figures. */
export const Mark = z.object({
  /** Milliseconds since the epoch. */
  atMs: z.number(),
  kind: z.enum(["preemption", "health", "pressure", "workload", "node"]),
  /** The state that began, in the event's own word: `notice`, `failed`, `critical`, `lost`, `started` … */
  state: z.string(),
  /** Those it concerns; absent where it is the whole node. */
  gpus: z.array(z.string()).readonly().exactOptional(),
  workloads: z.array(z.string()).readonly().exactOptional(),
  message: z.string().exactOptional(),
});
export type Mark = z.infer<typeof Mark>;

const LONGEST_MESSAGE = 200;

/** What an event looks like from afar; undefined where it is part of an ordinary day. */
export function markOf(event: DurableEvent): Mark | undefined {
  const atMs = Date.parse(event.at);
  if (Number.isNaN(atMs)) return undefined;
  const told = (message: string | undefined) =>
    message === undefined || message === "" ? {} : { message: message.slice(0, LONGEST_MESSAGE) };
  switch (event.kind) {
    case "preemption": {
      const { phase, cause, message, gpus, workloads } = event;
      if (phase !== "notice") return undefined;
      return { atMs, kind: "preemption", state: phase, gpus, workloads, ...told(message ?? cause) };
    }
    case "gpuHealth": {
      const { gpu, status, reasons } = event;
      const message = reasons.map((reason) => reason.message).join("; ");
      return { atMs, kind: "health", state: status, gpus: [gpu], ...told(message) };
    }
    case "pressure": {
      const { resource, gpu, level, valuePercent } = event;
      if (level === "normal") return undefined;
      const what = { vram: "VRAM", host_memory: "memory", disk: "disk" }[resource];
      const message = `${what} ${Math.round(valuePercent)} % in use`;
      return { atMs, kind: "pressure", state: level, ...(gpu !== undefined && { gpus: [gpu] }), message };
    }
    case "workload": {
      const { workload, state, gpus = [], message, reason } = event;
      if (state !== "failed" && state !== "lost") return undefined;
      return { atMs, kind: "workload", state, gpus, workloads: [workload], ...told(message ?? reason) };
    }
    case "node": {
      const { state, gpus, message, reason } = event;
      return { atMs, kind: "node", state, ...(gpus !== undefined && { gpus }), ...told(message ?? reason) };
    }
    default:
      return undefined;
  }
}
