import type { Values } from "./keys.ts";
import type { PortRange } from "./kinds.ts";
import { type NetworkException, networkException } from "./network-exception.ts";
import type { Secret } from "./secret.ts";

/** Percent of what can be used, and how much may be free at most. */
export interface PressureLimits {
  elevatedPercent: number;
  criticalPercent: number;
  freeMiB: number;
}

/** The daemon's configuration, complete: every default filled in. docs/configuration.md explains each value. */
export interface Config {
  name: string;
  labels: Readonly<Record<string, string>>;
  stateDir: string;
  runDir: string;
  coordinator: {
    /** `wss://host[:port]` or `ws://host[:port]`, without a path. */
    url?: string;
    /** From the file where one is named; see `withJoinToken`. */
    joinToken?: Secret;
    joinTokenFile?: string;
    caFile?: string;
    certFile?: string;
    keyFile?: string;
    /** `http://[user:password@]host:port`. */
    proxy?: Secret;
    insecure: boolean;
  };
  nvidia: { smi: string; simulated: boolean; kernelLog: string };
  docker: { socket: string };
  telemetry: { intervalMs: number; healthIntervalMs: number };
  /** From where a resource counts as under pressure. */
  pressure: {
    vram: PressureLimits;
    hostMemory: PressureLimits & { stallPercent: number };
    disk: PressureLimits;
  };
  policy: {
    images: readonly string[];
    maxWorkloads?: number;
    /** Both ends included. */
    hostPorts: PortRange;
    hostIp: string;
    reserve: { cpus: number; memoryMiB: number; diskMiB: number };
    runtime?: string;
    allowRoot: boolean;
    pullNoProgressSeconds: number;
  };
  network: {
    /** Workloads are kept off the owner's network. */
    isolateLan: boolean;
    allow: readonly NetworkException[];
    /** For each workload and direction. */
    bandwidthMbit?: number;
  };
  log: { level: Values["log.level"] };
}

/** The values under the names the code uses. */
export function configOf(values: Values): Config {
  return {
    name: values.name,
    labels: values.labels,
    stateDir: values.state_dir,
    runDir: values.run_dir,
    coordinator: {
      ...present({
        url: values["coordinator.url"],
        joinToken: values["coordinator.join_token"],
        joinTokenFile: values["coordinator.join_token_file"],
        caFile: values["coordinator.ca_file"],
        certFile: values["coordinator.cert_file"],
        keyFile: values["coordinator.key_file"],
        proxy: values["coordinator.proxy"],
      }),
      insecure: values["coordinator.insecure"],
    },
    nvidia: {
      smi: values["nvidia.smi"],
      simulated: values["nvidia.simulated"],
      kernelLog: values["nvidia.kernel_log"],
    },
    docker: { socket: values["docker.socket"] },
    telemetry: {
      intervalMs: values["telemetry.interval_ms"],
      healthIntervalMs: values["telemetry.health_interval_seconds"] * 1000,
    },
    pressure: {
      vram: limits(values, "vram"),
      hostMemory: { ...limits(values, "memory"), stallPercent: values["pressure.memory_stall_percent"] },
      disk: limits(values, "disk"),
    },
    policy: {
      images: values["policy.images"],
      hostPorts: values["policy.host_ports"],
      hostIp: values["policy.host_ip"],
      reserve: {
        cpus: values["policy.reserve.cpus"],
        memoryMiB: values["policy.reserve.memory_mib"],
        diskMiB: values["policy.reserve.disk_mib"],
      },
      ...present({ maxWorkloads: values["policy.max_workloads"], runtime: values["policy.runtime"] }),
      allowRoot: values["policy.allow_root"],
      pullNoProgressSeconds: values["policy.pull_no_progress_seconds"],
    },
    network: {
      isolateLan: values["network.isolate_lan"],
      allow: values["network.allow"].map(networkException).filter((exception) => exception !== undefined),
      ...present({ bandwidthMbit: values["network.bandwidth_mbit"] }),
    },
    log: { level: values["log.level"] },
  };
}

function limits(values: Values, resource: "vram" | "memory" | "disk"): PressureLimits {
  return {
    elevatedPercent: values[`pressure.${resource}_elevated_percent`],
    criticalPercent: values[`pressure.${resource}_critical_percent`],
    freeMiB: values[`pressure.${resource}_free_mib`],
  };
}

/** The same object without the keys that are undefined. */
function present<T extends object>(object: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}
