import { defaulted, key, mebibytes, onOff, optional, seconds } from "./key.ts";
import * as kinds from "./kinds.ts";
import { systemTimeZone } from "./surroundings.ts";
import { timeZone, type Window, windows } from "./windows.ts";

const CLOUDS = ["auto", "aws", "gcp", "azure"] as const;

/** Keys of when the node is lent, and of who takes GPUs back. */
export const TAKING_BACK_KEYS = {
  "availability.windows": defaulted<readonly Window[]>([], {
    kind: windows(),
    description:
      'When the node is lent: `["Mon-Fri 18:00-08:00", "Sat,Sun 00:00-24:00"]`; days are those a window starts on, without them every day. Outside of all windows what runs is preempted. Empty: always lent.',
  }),
  "availability.timezone": key({
    kind: timeZone(),
    description: "Time zone of the windows, by its IANA name; daylight saving is followed.",
    fallback: ({ env }) => ({ value: systemTimeZone(env), source: "the system" }),
    defaultText: "the system's",
  }),
  "availability.notice_seconds": seconds(
    300,
    [0, 86_400],
    "How long before the end of a window workloads are given notice, and nothing new is accepted.",
  ),
  "availability.yield_to_owner.vram_mib": mebibytes(
    2048,
    "A process of yours (a game, a notebook) with more VRAM than this takes the GPU back.",
  ),
  "availability.yield_to_owner.seconds": seconds(10, [1, 3600], "For so long it must have had it."),
  "availability.back_after_seconds": seconds(
    60,
    [0, 86_400],
    "Your process must be gone for so long before its GPU is lent again.",
  ),
  "preemption.within_seconds": seconds(
    120,
    [0, 86_400],
    "Work that is taken back is gone within so long, checkpoint included, whatever time it asked for. `reclaim --grace-seconds` and a deadline of the cause's own go before it.",
  ),
  "preemption.foreign_process": onOff(true, "Whether a process of yours takes its GPU back (`yield_to_owner`)."),
  "preemption.host_shutdown": onOff(
    true,
    "Whether work ends, with notice, when systemd stops the service or the machine goes down. If not, it is left to the engine, and taken up again by the next gpunode. A restart of the service never ends work.",
  ),
  "preemption.host_shutdown_seconds": seconds(
    60,
    [1, 3600],
    "Time that work has for its checkpoint and its end then. systemd is asked for more where the unit's TimeoutStopSec is shorter.",
  ),
  "preemption.cloud_notice": onOff(true, "Whether notices of the cloud that this machine will be taken are heeded."),
  "preemption.priority": onOff(
    true,
    "Whether a workload may take GPUs from preemptible ones of lower priority, where none are free. They are given notice, and end as with any preemption.",
  ),
  "preemption.coordinator": onOff(true, "Whether the coordinator may take back what runs here (`preempt`, `drain`)."),
  "preemption.gpu_fault": onOff(
    true,
    "Whether work is taken off a GPU that has failed, with notice, instead of being left to fail.",
  ),
  "preemption.host_pressure": onOff(
    true,
    "Whether workloads are ended, one by one, while memory or disk of this machine is critical.",
  ),
  "cloud.provider": defaulted<(typeof CLOUDS)[number]>("auto", {
    kind: kinds.oneOf(...CLOUDS),
    description: "The cloud this machine is rented from. `auto` asks the firmware, and never the network.",
  }),
  "cloud.metadata_url": optional({
    kind: kinds.metadataUrl(),
    description: "Where the cloud's metadata service is, if not at its usual address.",
  }),
};
