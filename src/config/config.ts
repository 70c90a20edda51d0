import type { Secret } from "../protocol/secret.ts";
import type { Values } from "./keys.ts";
import type { PortRange } from "./kinds.ts";
import { type NetworkException, networkException } from "./network-exception.ts";
import type { Window } from "./windows.ts";

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
  availability: {
    /** When the node is lent; empty: always. */
    windows: readonly Window[];
    /** IANA name. */
    timezone: string;
    noticeMs: number;
    /** A process that is no workload's, with more than this for so long, takes its GPU back. */
    yieldToOwner: { vramMiB: number; ms: number };
    backAfterMs: number;
  };
  preemption: {
    /** Work that is taken back is gone within so long, whatever it asked for. */
    withinMs: number;
    /** Which causes are heeded; the owner's word always is. */
    foreignProcess: boolean;
    cloudNotice: boolean;
    hostPressure: boolean;
    hostShutdown: boolean;
    hostShutdownMs: number;
    coordinator: boolean;
    priority: boolean;
    gpuFault: boolean;
  };
  cloud: {
    provider: Values["cloud.provider"];
    /** `http://host[:port]`, without a path. */
    metadataUrl?: string;
  };
  policy: {
    images: readonly string[];
    digestOnly: boolean;
    maxWorkloads?: number;
    /** The most that one workload may have; absent: the machine is the limit. */
    max: {
      cpus?: number;
      memoryMiB?: number;
      shmMiB?: number;
      diskMiB?: number;
      pids?: number;
      ports?: number;
      runSeconds?: number;
    };
    /** Both ends included. */
    hostPorts: PortRange;
    hostIp: string;
    reserve: { cpus: number; memoryMiB: number; diskMiB: number };
    runtime?: string;
    userns: "any" | "require";
    /** Absent: where the engine maps root to an ordinary user. */
    allowRoot?: boolean;
    allowCaches: boolean;
    readOnlyRoot: boolean;
    pullNoProgressSeconds: number;
    /** Paths; empty: signatures are not looked at. */
    cosignKeys: readonly string[];
  };
  network: {
    /** Workloads are kept off the owner's network. */
    isolateLan: boolean;
    allow: readonly NetworkException[];
    /** For each workload and direction. */
    bandwidthMbit?: number;
  };
  /** Where the local page and `/metrics` are served. */
  metrics: { listen: Values["metrics.listen"] };
  log: { level: Values["log.level"]; format: Values["log.format"] };
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
    availability: {
      windows: values["availability.windows"],
      timezone: values["availability.timezone"],
      noticeMs: values["availability.notice_seconds"] * 1000,
      yieldToOwner: {
        vramMiB: values["availability.yield_to_owner.vram_mib"],
        ms: values["availability.yield_to_owner.seconds"] * 1000,
      },
      backAfterMs: values["availability.back_after_seconds"] * 1000,
    },
    preemption: {
      withinMs: values["preemption.within_seconds"] * 1000,
      coordinator: values["preemption.coordinator"],
      priority: values["preemption.priority"],
      gpuFault: values["preemption.gpu_fault"],
      hostShutdown: values["preemption.host_shutdown"],
      hostShutdownMs: values["preemption.host_shutdown_seconds"] * 1000,
      foreignProcess: values["preemption.foreign_process"],
      cloudNotice: values["preemption.cloud_notice"],
      hostPressure: values["preemption.host_pressure"],
    },
    cloud: {
      provider: values["cloud.provider"],
      ...present({ metadataUrl: values["cloud.metadata_url"] }),
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
      digestOnly: values["policy.digest_only"],
      max: present({
        cpus: values["policy.max.cpus"],
        memoryMiB: values["policy.max.memory_mib"],
        shmMiB: values["policy.max.shm_mib"],
        diskMiB: values["policy.max.disk_mib"],
        pids: values["policy.max.pids"],
        ports: values["policy.max.ports"],
        runSeconds: values["policy.max.run_seconds"],
      }),
      ...present({
        maxWorkloads: values["policy.max_workloads"],
        runtime: values["policy.runtime"],
        allowRoot: values["policy.allow_root"],
      }),
      userns: values["policy.userns"],
      allowCaches: values["policy.allow_caches"],
      readOnlyRoot: values["policy.read_only_root"],
      cosignKeys: values["policy.cosign_keys"],
      pullNoProgressSeconds: values["policy.pull_no_progress_seconds"],
    },
    network: {
      isolateLan: values["network.isolate_lan"],
      allow: values["network.allow"].map(networkException).filter((exception) => exception !== undefined),
      ...present({ bandwidthMbit: values["network.bandwidth_mbit"] }),
    },
    metrics: { listen: values["metrics.listen"] },
    log: { level: values["log.level"], format: values["log.format"] },
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
