import type { Hold } from "../protocol/agent-frames.ts";
import type { PreemptionCause } from "../protocol/event.ts";

/** Who keeps a GPU, in a word or two for a table. */
const WHO: Record<PreemptionCause, string> = {
  owner: "owner",
  schedule: "schedule",
  foreign_process: "another program",
  host_shutdown: "shutdown",
  cloud_notice: "cloud",
  coordinator: "coordinator",
  priority: "priority",
  gpu_fault: "fault",
  host_pressure: "host pressure",
};

/** "owner until 20:15": the cause with the hour by this machine's clock, and the day where it is not today. */
export function holderInWords({ cause, until }: Hold, at: string): string {
  return until === undefined ? WHO[cause] : `${WHO[cause]} until ${clock(until, at)}`;
}

/** The same in a sentence: "GPU 0: blender (pid 12) uses 9000 MiB of it, until 20:15". */
export function holdInWords(hold: Hold, indexOf: (uuid: string) => string, at: string): string {
  const { gpus, message, until } = hold;
  const what =
    gpus === undefined ? "The whole node" : `GPU${gpus.length === 1 ? "" : "s"} ${gpus.map(indexOf).join(", ")}`;
  // Messages stand alone elsewhere, and name the GPU themselves.
  const said = message.endsWith(` of ${what}`) ? `${message.slice(0, -what.length)}it` : message;
  return `${what}: ${said}${until === undefined ? "" : `, until ${clock(until, at)}`}`;
}

export function whoIn(cause: PreemptionCause): string {
  return WHO[cause];
}

/** The hold a GPU is under: its own before the node's. */
export function holdOn(uuid: string, holds: readonly Hold[]): Hold | undefined {
  return holds.find(({ gpus }) => gpus?.includes(uuid) === true) ?? holds.find(({ gpus }) => gpus === undefined);
}

/** "20:15", with the day before it where that is another than that of `at`. */
export function clock(instant: string, at: string): string {
  const [when, now] = [new Date(instant), new Date(at)];
  const time = `${two(when.getHours())}:${two(when.getMinutes())}`;
  if (when.toDateString() === now.toDateString()) return time;
  return `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())} ${time}`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}
