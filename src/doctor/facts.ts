import type { Config } from "../config/config.ts";
import type { EngineAbout } from "../engine/about.ts";
import type { Inventory } from "../gpu/nvidia/inventory.ts";
import type { NvidiaBoard } from "../gpu/pci-presence.ts";
import type { KernelMessage } from "../host/kernel-log.ts";
import type { Snapshot } from "../local/snapshot.ts";
import type { FileLook } from "./machine.ts";

/** All the doctor gathers of a machine, by the name of the reader that gathers it. What a field cannot tell is absent. */
export interface Facts {
  system: SystemFacts;
  config: ConfigFacts;
  service: ServiceFacts;
  daemon: DaemonFacts;
  driver: DriverFacts;
  gpus: GpuFacts;
  kernelLog: KernelLogFacts;
  engine: EngineFacts;
  toolkit: ToolkitFacts;
  sight: SightFacts;
  firewall: FirewallFacts;
  trial: TrialFacts;
  disk: DiskFacts;
  diskSpeed: DiskSpeedFacts;
  state: StateFacts;
  network: NetworkFacts;
  coordinator: CoordinatorFacts;
  clock: ClockFacts;
  sleep: SleepFacts;
  memory: MemoryFacts;
  upgrades: UpgradeFacts;
}

export interface SystemFacts {
  hostname: string;
  /** Of os-release(5): `debian`; `ubuntu debian`. */
  os: { id: string; like: readonly string[]; name: string };
  kernel: string;
  /** Kernels that can be booted, oldest first. */
  kernels: readonly string[];
  /** Node's word: `x64`, `arm64`. */
  architecture: string;
  isRoot: boolean;
  hasSystemd: boolean;
  glibc?: string;
  node: string;
  /** Packages that wait for a reboot; [] where something unnamed does. Absent: none. */
  rebootFor?: readonly string[];
}

export interface ConfigFacts {
  file?: string;
  /** The values in force; the defaults where the file is wrong or closed. */
  config: Config;
  /** Lines that say what is wrong. */
  problems: readonly string[];
  warnings: readonly string[];
  /** This user may not read the file. */
  isClosed: boolean;
  /** Files that the daemon has to read, with the key that names them; `look` absent where there is none. */
  files: readonly { key: string; path: string; look?: FileLook }[];
}

/** A user, with all groups it is a member of. */
export interface User {
  name: string;
  uid: number;
  gids: readonly number[];
}

export interface ServiceFacts {
  /** As whom the daemon runs, or would: the service's user where the service is installed, else who asks. */
  user: User;
  /** Absent where no unit is installed. */
  unit?: {
    /** systemd's UnitFileState: `enabled`, `disabled`, `masked` …; absent where systemd could not be asked. */
    fileState?: string;
    /** systemd's ActiveState: `active`, `failed`, `inactive` … */
    activeState?: string;
    /** systemd's Result: `success`, `exit-code`, `start-limit-hit` … */
    result?: string;
    restarts?: number;
    needsReload?: boolean;
    capabilities: readonly string[];
    /** False where it is not the one this gpunode installs. */
    isCurrent: boolean;
  };
}

export type DaemonFacts =
  | { state: "running"; snapshot: Snapshot; oomScoreAdj?: number }
  /** Nobody answers. */
  | { state: "away"; message: string }
  /** This user may not ask. */
  | { state: "closed"; message: string }
  /** It is there, and does not answer. */
  | { state: "silent"; message: string };

export interface DriverFacts {
  /** The kernel module that is loaded. */
  loaded?: string;
  /** Versions of the driver's library `libnvidia-ml.so` on this machine. */
  libraries: readonly string[];
  boards: readonly NvidiaBoard[];
  isNouveauLoaded: boolean;
  /** Kernels of `SystemFacts.kernels` that have an NVIDIA module. */
  kernelsWithModule: readonly string[];
  hasSecureBoot: boolean;
  /** `/dev/nvidia…`, by path. */
  devices: ReadonlyMap<string, FileLook>;
  /** Of the service nvidia-persistenced; absent where it is not installed. */
  persistenced?: { keepsOff: boolean };
  /** What each PCI address's slot can carry. */
  slotWidths: ReadonlyMap<string, number>;
  /** The IOMMU translates what devices ask of memory. */
  iommuTranslates: boolean;
}

export interface GpuFacts {
  /** They come from the simulator. */
  simulated: boolean;
  /** The nvidia-smi that was asked. */
  smi: string;
  inventory: Inventory;
  /** Processes on them that run in containers. */
  inContainers: ReadonlySet<number>;
  /** When they were read, milliseconds since the epoch. */
  atMs: number;
}

export interface KernelLogFacts {
  path: string;
  /** Absent where it could be read. */
  problem?: string;
  messages: readonly KernelMessage[];
  /** `kernel.dmesg_restrict`: only with CAP_SYSLOG may it be read. */
  isRestricted: boolean;
}

export interface EngineFacts {
  socket: string;
  /** Absent where there is no socket. */
  look?: FileLook;
  /** Name of the socket's group. */
  group?: string;
  /** Absent where it does not answer; `problem` says why. */
  about?: EngineAbout;
  problem?: string;
  /** Where Docker's daemon is installed; absent where it is not. */
  program?: string;
  /** When dockerd was started. */
  startedAtMs?: number;
  /** What is wrong with /etc/docker/daemon.json. */
  daemonJsonProblem?: string;
}

export interface ToolkitFacts {
  /** `nvidia-container-runtime-hook`, by which Docker gives GPUs to containers. */
  hook?: string;
  hookChangedAtMs?: number;
  /** `nvidia-cdi-hook`, by which newer engines do. */
  cdiHook?: string;
  /** `nvidia-ctk`. */
  ctk?: string;
  /** Of /etc/nvidia-container-runtime/config.toml. */
  mode?: string;
  noCgroups: boolean;
  specs: readonly CdiSpec[];
  /** The service that keeps the specifications fresh is installed. */
  hasRefresh: boolean;
  /** `/dev/nvidia…` without a link in /dev/char. */
  unlinked: readonly string[];
  /** NVIDIA's package source is set up. */
  hasSource: boolean;
}

export interface CdiSpec {
  path: string;
  /** Driver versions that its libraries name. */
  versions: readonly string[];
  /** Names of its devices: `0`, `GPU-…`, `all`. */
  devices: readonly string[];
}

/** What a test container saw of a GPU. */
export interface SightFacts {
  gpu: string;
  /** UUIDs that nvidia-smi named inside. */
  seen: readonly string[];
  /** `/dev/nvidia…` inside. */
  devices: readonly string[];
  /** What nvidia-smi said inside where it named none. */
  said?: string;
  /** Why it could not even be started. */
  problem?: string;
}

export interface FirewallFacts {
  /** Path of nft. */
  program?: string;
}

/** What a trial of the isolation came to. */
export interface TrialFacts {
  problem?: string;
}

export interface Volume {
  path: string;
  freeMiB: number;
  totalMiB: number;
  freeInodesPercent?: number;
  /** `ext4`, `xfs` … */
  fileSystem?: string;
  mountOptions: readonly string[];
}

export interface DiskFacts {
  /** Where the node's state lies. */
  state?: Volume;
  /** Where images and containers lie. */
  images?: Volume;
}

export interface DiskSpeedFacts {
  path: string;
  writeMiBps: number;
  /** A small write until the disk has it: the middle one of some. */
  syncMs: number;
}

export interface StateFacts {
  path: string;
  look?: FileLook;
  /** Files in it that others may read, though they hold keys. */
  openSecrets: readonly string[];
  /** Nothing lies in it that gpunode has not made. */
  isOwn: boolean;
}

export interface NetworkFacts {
  /** Smallest packet size of the devices that default routes lead over. */
  uplink?: { device: string; mtu: number };
  /** Bridges that Docker has made, by name. */
  bridges: ReadonlyMap<string, number>;
  /** Ports the system gives to outgoing connections. */
  localPorts?: { from: number; to: number };
  reservedPorts: readonly { from: number; to: number }[];
  /** TCP ports that somebody listens on, with the uid of who does. */
  listening: ReadonlyMap<number, number>;
}

/** The way to the coordinator, step by step; a step is absent where one before it failed. */
export interface CoordinatorFacts {
  url: string;
  /** `host:port` of the proxy. */
  proxy?: string;
  name?: { addresses: readonly string[] } | { problem: string };
  connection?: { tookMs: number } | { problem: string };
  certificate?: CertificateFacts;
  protocol?: { works: true } | { problem: string };
  /** The coordinator's clock less this machine's; as exact as a second. */
  clockAheadMs?: number;
}

export interface CertificateFacts {
  /** Leaf first; `subject` in one line. */
  chain: readonly { subject: string; validUntilMs: number }[];
  problem?: string;
}

export interface ClockFacts {
  nowMs: number;
  /** Absent where nobody could be asked. */
  isSynchronized?: boolean;
  /** systemd's time service is switched on. */
  isServiceOn?: boolean;
  /** A time service that systemd can switch on is installed. */
  canSwitchOn?: boolean;
}

export interface SleepFacts {
  /** Targets that systemd can still be asked to sleep by: `suspend.target` … */
  open: readonly string[];
  hasLid: boolean;
  /** Of logind.conf(5): what it does when the lid is closed, and when nobody does anything. */
  lidSwitch: string;
  lidSwitchExternalPower: string;
  idleAction: string;
  /** A graphical login is installed; desktops put an idle machine to sleep by themselves. */
  hasDesktop: boolean;
}

export interface MemoryFacts {
  totalMiB: number;
  availableMiB: number;
  swapTotalMiB: number;
  swapFreeMiB: number;
  /** Share of the last ten seconds in which something waited for memory. */
  stallPercent?: number;
}

export interface UpgradeFacts {
  /** Who would do it by himself: `unattended-upgrades`, `dnf-automatic`; absent: nobody. */
  by?: "unattended-upgrades" | "dnf-automatic";
  /** Installed packages of the driver that nothing holds back. */
  loose: readonly string[];
}
