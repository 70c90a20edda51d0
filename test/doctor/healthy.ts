import { defaultConfig } from "../../src/config/load.ts";
import type { Facts } from "../../src/doctor/facts.ts";
import type { FileLook } from "../../src/doctor/machine.ts";
import type { Gpu } from "../../src/protocol/gpu.ts";
import { exampleSnapshot } from "../local/snapshot-example.ts";

/** 2026-01-02T03:04:05Z */
export const NOW_MS = 1_767_323_045_000;
const DAY_MS = 86_400_000;

export const UUIDS = ["GPU-11111111-2222-3333-4444-555555555555", "GPU-66666666-7777-8888-9999-000000000000"] as const;

export function look(kind: FileLook["kind"], mode: number, uid = 0, gid = 0): FileLook {
  return { kind, mode, uid, gid, changedAtMs: NOW_MS - 30 * DAY_MS };
}

export function gpu(index: 0 | 1): Gpu {
  return {
    index,
    uuid: UUIDS[index],
    vendor: "nvidia",
    name: "NVIDIA A100-SXM4-40GB",
    driverVersion: "550.163.01",
    pci: {
      busId: `00000000:0${index + 1}:00.0`,
      linkGeneration: 4,
      linkGenerationMax: 4,
      linkWidth: 16,
      linkWidthMax: 16,
    },
    powerLimitWatts: 400,
    powerLimitDefaultWatts: 400,
    eccEnabled: true,
    persistenceMode: true,
    displayActive: false,
    computeMode: "Default",
    mig: { enabled: false, instances: [] },
    links: [],
    health: { status: "healthy", reasons: [] },
    allocatable: true,
  };
}

/** All facts of a machine on which nothing is wrong: two A100 on Debian, the service running and connected. */
export function healthy(): Facts {
  const snapshot = { ...exampleSnapshot(), problems: [], workloads: [], page: "http://127.0.0.1:9835/" };
  const gpus = [gpu(0), gpu(1)];
  return {
    system: {
      hostname: "rig-01",
      os: { id: "debian", like: [], name: "Debian GNU/Linux 12 (bookworm)" },
      kernel: "6.1.0-32-amd64",
      kernels: ["6.1.0-31-amd64", "6.1.0-32-amd64"],
      architecture: "x64",
      isRoot: true,
      hasSystemd: true,
      glibc: "2.36",
      node: "v24.11.0",
    },
    config: {
      file: "/etc/gpunode/config.toml",
      config: {
        ...defaultConfig({}),
        coordinator: { url: "wss://coordinator.example", insecure: false },
        stateDir: "/var/lib/gpunode",
      },
      problems: [],
      warnings: [],
      isClosed: false,
      files: [{ key: "the configuration", path: "/etc/gpunode/config.toml", look: look("file", 0o640, 0, 990) }],
    },
    service: {
      user: { name: "gpunode", uid: 990, gids: [990, 120] },
      unit: {
        fileState: "enabled",
        activeState: "active",
        result: "success",
        restarts: 0,
        needsReload: false,
        capabilities: ["CAP_SYSLOG", "CAP_NET_ADMIN"],
        isCurrent: true,
      },
    },
    daemon: {
      state: "running",
      snapshot: {
        ...snapshot,
        gpus: gpus.map((one) => ({ ...one })),
      },
      oomScoreAdj: 0,
    },
    driver: {
      loaded: "550.163.01",
      libraries: ["550.163.01"],
      boards: [
        { address: "0000:01:00.0", driver: "nvidia" },
        { address: "0000:02:00.0", driver: "nvidia" },
      ],
      isNouveauLoaded: false,
      kernelsWithModule: ["6.1.0-31-amd64", "6.1.0-32-amd64"],
      hasSecureBoot: false,
      devices: new Map(
        ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"].map((name) => [`/dev/${name}`, look("device", 0o666)]),
      ),
      persistenced: { keepsOff: false },
      slotWidths: new Map([["0000:01:00.0", 16]]),
      iommuTranslates: false,
    },
    gpus: {
      simulated: false,
      smi: "nvidia-smi",
      inventory: {
        gpus,
        problems: [],
        driverVersion: "550.163.01",
        cudaVersion: "12.4",
        processes: new Map(UUIDS.map((uuid) => [uuid, []])),
        samples: UUIDS.map((uuid) => ({ uuid, utilizationPercent: 0 })),
        raw: new Map(
          UUIDS.map((uuid) => [
            uuid,
            new Map([
              ["ecc_mode/pending_ecc", "Enabled"],
              ["mig_mode/pending_mig", "Disabled"],
            ]),
          ]),
        ),
        rows: 2,
      },
      inContainers: new Set(),
      atMs: NOW_MS,
    },
    kernelLog: { path: "/dev/kmsg", messages: [], isRestricted: true },
    engine: {
      socket: "/var/run/docker.sock",
      look: look("socket", 0o660, 0, 120),
      group: "docker",
      program: "/usr/sbin/dockerd",
      startedAtMs: NOW_MS - DAY_MS,
      about: {
        info: {
          kind: "docker",
          available: true,
          version: "27.3.1",
          apiVersion: "1.47",
          storageDriver: "overlay2",
          cgroupVersion: "2",
          runtimes: ["io.containerd.runc.v2", "nvidia", "runc"],
          security: ["apparmor", "cgroupns", "seccomp"],
          limits: ["cpu", "memory", "pids"],
        },
        product: "Docker Engine - Community",
        cgroupDriver: "systemd",
        liveRestore: true,
        dataRoot: "/var/lib/docker",
        backingFileSystem: "xfs",
        mayHoldDisk: true,
      },
    },
    toolkit: {
      hook: "/usr/bin/nvidia-container-runtime-hook",
      hookChangedAtMs: NOW_MS - 30 * DAY_MS,
      cdiHook: "/usr/bin/nvidia-cdi-hook",
      ctk: "/usr/bin/nvidia-ctk",
      mode: "auto",
      noCgroups: false,
      specs: [{ path: "/etc/cdi/nvidia.yaml", versions: ["550.163.01"], devices: ["0", "1", "all"] }],
      hasRefresh: false,
      unlinked: [],
      hasSource: true,
    },
    sight: { gpu: UUIDS[0], seen: [UUIDS[0]], devices: ["/dev/nvidia0", "/dev/nvidiactl"] },
    firewall: { program: "/usr/sbin/nft" },
    trial: {},
    disk: {
      state: {
        path: "/var/lib/gpunode",
        freeMiB: 200_000,
        totalMiB: 400_000,
        freeInodesPercent: 90,
        fileSystem: "ext4",
        mountOptions: ["rw"],
      },
      images: {
        path: "/var/lib/docker",
        freeMiB: 200_000,
        totalMiB: 400_000,
        freeInodesPercent: 90,
        fileSystem: "xfs",
        mountOptions: ["rw", "prjquota"],
      },
    },
    diskSpeed: { path: "/var/lib/docker", writeMiBps: 900, syncMs: 0.8 },
    state: { path: "/var/lib/gpunode", look: look("folder", 0o700, 990, 990), openSecrets: [], isOwn: true },
    network: {
      uplink: { device: "eth0", mtu: 1500 },
      bridges: new Map([["docker0", 1500]]),
      localPorts: { from: 32768, to: 60999 },
      reservedPorts: [],
      listening: new Map([
        [22, 0],
        [9835, 990],
      ]),
    },
    coordinator: {
      url: "wss://coordinator.example",
      name: { addresses: ["192.0.2.7"] },
      connection: { tookMs: 12 },
      certificate: {
        chain: [
          { subject: "coordinator.example", validUntilMs: NOW_MS + 60 * DAY_MS },
          { subject: "An Authority", validUntilMs: NOW_MS + 900 * DAY_MS },
        ],
      },
      protocol: { works: true },
      clockAheadMs: 300,
    },
    clock: { nowMs: NOW_MS, isSynchronized: true, isServiceOn: true, canSwitchOn: true },
    sleep: {
      open: [],
      hasLid: false,
      lidSwitch: "suspend",
      lidSwitchExternalPower: "suspend",
      idleAction: "ignore",
      hasDesktop: false,
    },
    memory: { totalMiB: 128_000, availableMiB: 100_000, swapTotalMiB: 8_000, swapFreeMiB: 8_000, stallPercent: 0 },
    upgrades: { by: "unattended-upgrades", loose: [] },
  };
}
