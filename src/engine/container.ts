import { posix } from "node:path";
import type Docker from "dockerode";
import type { PortBinding } from "../protocol/workload.ts";
import type { ContainerSpec, ContainerState, LABEL_NODE as LabelNode } from "../workload/needs.ts";
import type { ContainerAnswer } from "./answers.ts";
import { deviceRequests, gpuEnvironment, recordedGpus } from "./gpu.ts";

/** Every container and volume of ours carries it; the type holds it to the name the workload room uses. */
export const LABEL_NODE: typeof LabelNode = "org.gpunode.node";

/** What a container writes to stdout and stderr is kept up to this; older output is dropped by the engine. */
const LOG_FILE_MAX = "20m";
const LOG_FILES = "3";

const MIB = 1024 * 1024;

/**
 * All a container may do as root inside: own files and give them away, become another user, send signals, listen below
 * port 1024. Of Docker's own default set this leaves out NET_RAW (forged packets on the owner's network), MKNOD,
 * SETPCAP, SETFCAP, SYS_CHROOT and AUDIT_WRITE.
 */
const CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];

/** Where memory runs out the kernel ends the process with the most of these points: any container's before any program of the owner's. */
const OOM_POINTS = { promised: 500, unpromised: 1000 };

/**
 * No core dumps, which hold secrets and fill disks; and no process with more open files than its share. An engine that runs unprivileged
 * itself could not grant many more.
 */
const ULIMITS = [
  { Name: "core", Soft: 0, Hard: 0 },
  { Name: "nofile", Soft: 16_384, Hard: 16_384 },
];

/** `/tmp` of a read-only container is in memory, and counts as such. */
const TMP_MOST_MIB = 1024;

/** What a container's request depends on besides its spec. */
export interface EngineTraits {
  /** The engine has an init process for containers. */
  hasInit: boolean;
  /** The storage can hold a container's layer to a size. */
  holdsDisk: boolean;
  /** The GPUs are simulated: they are named in the environment and not asked for. */
  simulatedGpus: boolean;
}

/** The engine's create request for a spec. Whatever is not in the spec is closed: no host path, namespace or device. */
export function createRequest(spec: ContainerSpec, engine: EngineTraits): Docker.ContainerCreateOptions {
  const env = Object.entries(gpuEnvironment(spec.env, spec.gpus)).map(
    ([name, value]) => `${name}=${typeof value === "string" ? value : value.reveal()}`,
  );
  return {
    name: spec.name,
    Image: spec.image,
    Labels: spec.labels,
    Env: env,
    ...(spec.entrypoint !== undefined && { Entrypoint: spec.entrypoint }),
    ...(spec.command !== undefined && { Cmd: spec.command }),
    ...(spec.workdir !== undefined && { WorkingDir: spec.workdir }),
    ...(spec.user !== undefined && { User: spec.user }),
    StopSignal: spec.stopSignal,
    // The logs are then always the multiplexed kind, and a workload cannot play with the owner's terminal.
    Tty: false,
    OpenStdin: false,
    ExposedPorts: Object.fromEntries(spec.ports.map((port) => [portKey(port), {}])),
    // The image's own health check would run besides the workload's, and unasked.
    Healthcheck: { Test: ["NONE"] },
    HostConfig: hostConfig(spec, engine),
  };
}

/** The types do not know the mode yet; API 1.41 does. */
type HostConfig = Docker.HostConfig & { CgroupnsMode: "private" };

function hostConfig(spec: ContainerSpec, engine: EngineTraits): HostConfig {
  const memoryBytes = spec.memoryMiB * MIB;
  return {
    Memory: memoryBytes,
    // Swap of nothing: a workload over its limit ends at once instead of dragging the whole machine down.
    MemorySwap: memoryBytes,
    OomScoreAdj: spec.memoryIsUnpromised === true ? OOM_POINTS.unpromised : OOM_POINTS.promised,
    NanoCpus: Math.round(spec.cpus * 1e9),
    ShmSize: spec.shmMiB * MIB,
    PidsLimit: spec.pids,
    Ulimits: ULIMITS,
    ...(engine.holdsDisk && { StorageOpt: { size: `${spec.diskMiB}M` } }),
    PortBindings: portBindings(spec),
    // Volumes as mounts and not as "binds": there a name with a slash would be a path of the host.
    Mounts: mounts(spec),
    DeviceRequests: engine.simulatedGpus ? [] : deviceRequests(spec.gpus),
    LogConfig: { Type: "json-file", Config: { "max-size": LOG_FILE_MAX, "max-file": LOG_FILES } },
    // The runner alone decides on restarts, and removes a container only when its end is on record.
    RestartPolicy: { Name: "no" },
    AutoRemove: false,
    // It reaps orphans and passes signals on; without it a shell as process 1 ignores SIGTERM.
    ...(engine.hasInit && { Init: true }),
    ...(spec.runtime !== undefined && { Runtime: spec.runtime }),
    Privileged: false,
    ...(spec.readOnlyRoot === true && readOnlyRoot(spec)),
    CapDrop: ["ALL"],
    CapAdd: CAPABILITIES,
    // Neither a seccomp nor an AppArmor profile is named: the engine then uses its default ones, where it has them.
    SecurityOpt: ["no-new-privileges"],
    CgroupnsMode: "private",
    NetworkMode: spec.network ?? "bridge",
    IpcMode: "private",
  };
}

function readOnlyRoot({ memoryMiB, volumes }: ContainerSpec): Docker.HostConfig {
  const tmpMiB = Math.max(1, Math.min(TMP_MOST_MIB, Math.floor(memoryMiB / 2)));
  // Compilers run what they have written there. A cache that lies there is the workload's own wish.
  const tmp = { "/tmp": `rw,exec,nosuid,nodev,mode=1777,size=${tmpMiB}m` };
  const isTaken = volumes.some(({ path }) => posix.resolve(path) === "/tmp");
  return { ReadonlyRootfs: true, ...(!isTaken && { Tmpfs: tmp }) };
}

function mounts(spec: ContainerSpec): Docker.MountSettings[] {
  const volumes = spec.volumes.map((volume) => volumeMount(spec, volume));
  if (spec.inbox === undefined) return volumes;
  // Without a name: it is removed with the container. What the image has there is no business of the agent's.
  const VolumeOptions = { ...volumeOptions(spec), NoCopy: true };
  return [...volumes, { Type: "volume", Source: "", Target: spec.inbox, VolumeOptions }];
}

/** A volume with a name, kept when its container goes. */
export function volumeMount(
  spec: Pick<ContainerSpec, "labels">,
  { name, path }: ContainerSpec["volumes"][number],
): Docker.MountSettings {
  return { Type: "volume", Source: name, Target: path, VolumeOptions: volumeOptions(spec) };
}

function volumeOptions(spec: Pick<ContainerSpec, "labels">): NonNullable<Docker.MountSettings["VolumeOptions"]> {
  const Labels: Record<string, string> = { [LABEL_NODE]: spec.labels[LABEL_NODE] ?? "" };
  return { NoCopy: false, Labels, DriverConfig: { Name: "local", Options: {} } };
}

function portBindings({ ports, hostIp }: ContainerSpec): Record<string, { HostIp: string; HostPort: string }[]> {
  const bindings: Record<string, { HostIp: string; HostPort: string }[]> = {};
  for (const port of ports) {
    const list = bindings[portKey(port)] ?? [];
    list.push({ HostIp: hostIp, HostPort: String(port.host) });
    bindings[portKey(port)] = list;
  }
  return bindings;
}

function portKey({ container, protocol }: PortBinding): string {
  return `${container}/${protocol ?? "tcp"}`;
}

/** The engine's answer to an inspect as the workload room knows it. */
export function containerState({ Id, Name, State, Config, HostConfig }: ContainerAnswer): ContainerState {
  const startedAt = instant(State.StartedAt);
  const finishedAt = instant(State.FinishedAt);
  return {
    id: Id,
    name: Name.replace(/^\//, ""),
    labels: Config.Labels,
    status: State.Status,
    pid: State.Pid,
    exitCode: State.ExitCode,
    oomKilled: State.OOMKilled,
    error: State.Error,
    ...(startedAt !== undefined && { startedAt }),
    ...(finishedAt !== undefined && { finishedAt }),
    gpus: recordedGpus(HostConfig.DeviceRequests),
  };
}

/** Go's zero time stands for "never". */
function instant(time: string): string | undefined {
  return time === "" || time.startsWith("0001-01-01") ? undefined : time;
}

/** True while the container's processes live. */
export function isUp({ status }: ContainerState): boolean {
  return status === "running" || status === "paused" || status === "restarting";
}
