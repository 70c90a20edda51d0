import type { Check } from "./check.ts";
import { COORDINATOR_CHECKS } from "./checks/coordinator.ts";
import { DISK_CHECKS } from "./checks/disk.ts";
import { DRIVER_CHECKS } from "./checks/driver.ts";
import { ENGINE_CHECKS } from "./checks/engine.ts";
import { GPU_HEALTH_CHECKS } from "./checks/gpu-health.ts";
import { GPU_CHECKS } from "./checks/gpus.ts";
import { HOST_CHECKS } from "./checks/host.ts";
import { NETWORK_CHECKS } from "./checks/network.ts";
import { OWN_CHECKS } from "./checks/own.ts";
import { TOOLKIT_CHECKS } from "./checks/toolkit.ts";

/** All there are, in the order in which they are told: what others depend on comes first. */
export const CHECK_GROUPS: readonly { readonly title: string; readonly checks: readonly Check[] }[] = [
  { title: "gpunode itself", checks: OWN_CHECKS },
  { title: "The driver", checks: DRIVER_CHECKS },
  { title: "The GPUs", checks: [...GPU_HEALTH_CHECKS, ...GPU_CHECKS] },
  { title: "The container engine", checks: ENGINE_CHECKS },
  { title: "GPUs in containers", checks: TOOLKIT_CHECKS },
  { title: "Disk and state", checks: DISK_CHECKS },
  { title: "The network", checks: NETWORK_CHECKS },
  { title: "The coordinator and the clock", checks: COORDINATOR_CHECKS },
  { title: "The machine", checks: HOST_CHECKS },
];

export const CHECKS: readonly Check[] = CHECK_GROUPS.flatMap(({ checks }) => checks);
