import * as z from "zod";

import { Count, Generation, GpuUuid, Port, Precision, Quantity, WorkloadId } from "./scalars.ts";

/**
 * States in the order they may be passed. A state is also a logical clock: within a generation only a later one may
 * follow, and the six terminal ones end it (SwarmKit's rule, `docs/decisions/003-one-step-at-a-time.md`).
 */
export const WORKLOAD_STATES = [
  "accepted",
  "pulling",
  "starting",
  "running",
  "stopping",
  "succeeded",
  "failed",
  "stopped",
  "preempted",
  "rejected",
  "lost",
] as const;
export const WorkloadState = z.enum(WORKLOAD_STATES);
export type WorkloadState = z.infer<typeof WorkloadState>;

/** Credentials for one pull. Never stored, never logged. */
export const RegistryAuth = z.union([
  z.object({ username: z.string(), password: z.string() }),
  z.object({ identityToken: z.string() }),
]);
export type RegistryAuth = z.infer<typeof RegistryAuth>;

export const PortProtocol = z.enum(["tcp", "udp"]);

const EnvName = z.string().regex(/^[^=\0]{1,255}$/, "must be 1-255 characters without '='");
const EnvValue = z
  .string()
  .max(128 * 1024)
  .regex(/^[^\0]*$/, "must not contain a NUL character");
const Argument = z
  .string()
  .max(128 * 1024)
  .regex(/^[^\0]*$/, "must not contain a NUL character");
const Exec = z.array(Argument).min(1).max(1000);
const Signal = z.string().regex(/^SIG[A-Z0-9+-]{2,12}$/, 'must be a signal name such as "SIGTERM"');

export const GpuRequest = z.object({
  /** How many GPUs (or MIG instances, with `migProfile`); 0 = none. */
  count: z.int().min(0).max(64).default(0),
  minVramMiB: Count.exactOptional(),
  /** The tensor cores must multiply all of these. */
  precisions: z.array(Precision).exactOptional(),
  minComputeCapability: z
    .string()
    .regex(/^\d{1,3}\.\d{1,2}$/, 'must be major.minor, e.g. "8.0"')
    .exactOptional(),
  /** Only these GPUs, by UUID. */
  uuids: z.array(GpuUuid).max(64).exactOptional(),
  /** A MIG profile such as "1g.10gb"; without it only whole GPUs are given. */
  migProfile: z.string().max(40).exactOptional(),
  /** The GPUs must reach each other over NVLink. */
  nvlink: z.boolean().exactOptional(),
});
export type GpuRequest = z.infer<typeof GpuRequest>;

export const Resources = z.object({
  cpus: z.number().positive().max(4096).exactOptional(),
  memoryMiB: z.int().min(6).exactOptional(),
  shmMiB: z.int().min(1).exactOptional(),
  diskMiB: z.int().min(1).exactOptional(),
  pids: z.int().min(1).max(4_194_304).exactOptional(),
});
export type Resources = z.infer<typeof Resources>;

const HealthTiming = {
  intervalSeconds: Quantity.min(1).max(86_400).default(10),
  timeoutSeconds: Quantity.min(1).max(86_400).default(5),
  startPeriodSeconds: Quantity.max(86_400).default(0),
  retries: z.int().min(1).max(100).default(3),
};
export const HealthProbe = z.union([
  z.object({ http: z.object({ port: Port, path: z.string().regex(/^\//, "must start with /") }), ...HealthTiming }),
  z.object({ exec: Exec, ...HealthTiming }),
]);
export type HealthProbe = z.infer<typeof HealthProbe>;

export const StopPolicy = z.object({
  signal: Signal.default("SIGTERM"),
  graceSeconds: Quantity.max(86_400).default(10),
  checkpoint: z.object({ exec: Exec, timeoutSeconds: Quantity.max(86_400) }).exactOptional(),
  /** Sent to the main process when notice is given, after the file with cause and deadline is there. */
  noticeSignal: Signal.exactOptional(),
});

export const RestartPolicy = z.object({
  policy: z.enum(["never", "on-failure"]).default("never"),
  maxRetries: z.int().min(0).max(1000).default(0),
});

export const OnDisconnect = z.object({
  action: z.enum(["continue", "stop"]).default("continue"),
  /** For "stop": end the workload when the coordinator has been silent for this long. */
  afterSeconds: Quantity.default(0),
});

/** What the coordinator wants run. Parsing fills the defaults in. */
export const Workload = z.object({
  id: WorkloadId,
  generation: Generation,
  /** Whose it is. `caches` of one owner are shared between that owner's workloads; without it they are the workload's own. */
  owner: WorkloadId.exactOptional(),
  priority: z.int().min(0).max(1000).default(100),
  preemptible: z.boolean().default(true),
  image: z.string().min(1).max(512),
  registryAuth: RegistryAuth.exactOptional(),
  entrypoint: z.array(Argument).max(1000).exactOptional(),
  command: z.array(Argument).max(1000).exactOptional(),
  env: z.record(EnvName, EnvValue).default({}),
  secretEnv: z.record(EnvName, EnvValue).default({}),
  workdir: z
    .string()
    .regex(/^\/[^\0]*$/, "must be an absolute path")
    .max(4096)
    .exactOptional(),
  user: z.string().max(255).exactOptional(),
  /** Nothing of the root file system can be written to; `/tmp` is in memory then, and bounded. */
  readOnlyRoot: z.boolean().exactOptional(),
  gpus: GpuRequest.default({ count: 0 }),
  resources: Resources.default({}),
  ports: z
    .array(z.object({ container: Port, protocol: PortProtocol.default("tcp") }))
    .max(100)
    .default([]),
  caches: z
    .array(z.object({ name: WorkloadId, path: z.string().regex(/^\/[^\0:]+$/, "must be an absolute path") }))
    .max(32)
    .default([]),
  health: HealthProbe.exactOptional(),
  stop: StopPolicy.default({ signal: "SIGTERM", graceSeconds: 10 }),
  restart: RestartPolicy.default({ policy: "never", maxRetries: 0 }),
  maxRuntimeSeconds: z.number().positive().exactOptional(),
  onDisconnect: OnDisconnect.default({ action: "continue", afterSeconds: 0 }),
});
/** A workload with every default filled in. */
export type Workload = z.infer<typeof Workload>;
/** A workload as a coordinator may write it. */
export type WorkloadInput = z.input<typeof Workload>;

/** A container port and the host port the agent picked for it. */
export const PortBinding = z.object({ container: Port, host: Port, protocol: PortProtocol.exactOptional() });
export type PortBinding = z.infer<typeof PortBinding>;
