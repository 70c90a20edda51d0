import { NOW_MS, UUIDS } from "../healthy.ts";
import { away, type Case, gpu0, ill, inventory, problem, raw, snapshot, unit } from "./case.ts";

export const GPUS_CASES: readonly Case[] = [
  {
    id: "gpu-health",
    when: "one asks for a reset",
    facts: (good) =>
      gpu0(
        good,
        ill({
          status: "degraded",
          reasons: [{ code: "row_remap_pending", message: "a broken memory row is replaced at the next reset" }],
        }),
      ),
    verdict: "warning",
    found: /GPU 0 \(NVIDIA A100-SXM4-40GB\) is degraded: a broken memory row/,
    fix: /^nvidia-smi -i 0 --gpu-reset$/,
  },
  {
    id: "gpu-health",
    when: "a board is worn out",
    facts: (good) =>
      gpu0(
        good,
        ill({
          status: "failed",
          reasons: [{ code: "row_remap_failure", message: "a broken memory row could not be replaced" }],
        }),
      ),
    verdict: "failure",
    found: /is failed/,
    fix: /have the board replaced/,
  },
  {
    id: "gpu-health",
    when: "the kernel log tells of a fall off the bus",
    facts: () => ({
      kernelLog: {
        path: "/dev/kmsg",
        isRestricted: true,
        messages: [
          {
            atMs: NOW_MS - 1000,
            text: "NVRM: Xid (PCI:0000:02:00): 79, pid=1234, name=python, GPU has fallen off the bus.",
          },
        ],
      },
    }),
    verdict: "failure",
    found: /GPU 1 .* has fallen off the bus/,
    fix: /power the machine off and on/,
  },
  {
    id: "gpu-health",
    when: "an application's fault is in the log",
    facts: () => ({
      kernelLog: {
        path: "/dev/kmsg",
        isRestricted: true,
        messages: [
          {
            atMs: NOW_MS - 1000,
            text: "NVRM: Xid (PCI:0000:02:00): 31, pid=1234, name=python, Ch 00000008, MMU Fault",
          },
        ],
      },
    }),
    verdict: "ok",
    found: /healthy/,
  },
  {
    id: "gpu-health",
    when: "the daemon has seen it slowed down by heat",
    facts: (good) => ({
      daemon: snapshot(good, ({ gpus }) => ({
        gpus: gpus.map((one, at) =>
          at === 1
            ? {
                ...one,
                health: {
                  status: "degraded",
                  reasons: [{ code: "thermal_throttling", message: "slowed down by heat for minutes" }],
                },
              }
            : one,
        ),
      })),
    }),
    verdict: "warning",
    found: /GPU 1 .* slowed down by heat/,
    fix: /clean its fans/,
  },
  {
    id: "persistence-mode",
    when: "it is off, with the service at hand",
    facts: (good) => gpu0(good, { persistenceMode: false }),
    verdict: "warning",
    found: /off on GPU 0$/,
    fix: /^systemctl enable --now nvidia-persistenced$/,
    auto: "safe",
  },
  {
    id: "persistence-mode",
    when: "it is off, and Ubuntu's service keeps it so",
    facts: (good) => ({
      ...gpu0(good, { persistenceMode: false }),
      driver: { ...good.driver, persistenced: { keepsOff: true } },
    }),
    verdict: "warning",
    found: /off on GPU 0$/,
    fix: /^nvidia-smi -pm 1$/,
    auto: "safe",
  },
  {
    id: "pcie-link",
    when: "it is badly seated",
    facts: (good) => gpu0(good, { pci: { busId: "00000000:01:00.0", linkWidth: 4, linkWidthMax: 16 } }),
    verdict: "warning",
    found: /GPU 0 runs at ×4, its slot gives ×16/,
    fix: /seat the board/,
  },
  {
    id: "pcie-link",
    when: "the slot gives half",
    facts: (good) => ({
      ...gpu0(good, { pci: { busId: "00000000:01:00.0", linkWidth: 8, linkWidthMax: 16 } }),
      driver: { ...good.driver, slotWidths: new Map([["0000:01:00.0", 8]]) },
    }),
    verdict: "note",
    found: /×8, which is all its slot gives/,
  },
  {
    id: "pcie-link",
    when: "it is a riser for mining",
    facts: (good) => ({
      ...gpu0(good, { pci: { busId: "00000000:01:00.0", linkWidth: 1, linkWidthMax: 16 } }),
      driver: { ...good.driver, slotWidths: new Map([["0000:01:00.0", 1]]) },
    }),
    verdict: "warning",
    found: /×1, which is all its slot gives; the board could ×16/,
  },
  {
    id: "pcie-link",
    when: "it is slow under load",
    facts: (good) => ({
      gpus: {
        ...good.gpus,
        inventory: {
          ...good.gpus.inventory,
          gpus: good.gpus.inventory.gpus.map((one) => ({
            ...one,
            pci: { busId: "x", linkGeneration: 1, linkGenerationMax: 4, linkWidth: 16, linkWidthMax: 16 },
          })),
          samples: UUIDS.map((uuid, at) => ({ uuid, utilizationPercent: at === 0 ? 95 : 0 })),
        },
      },
    }),
    verdict: "note",
    found: /^GPU 0 works, and its link runs at generation 1 of 4$/,
  },
  {
    id: "pcie-link",
    when: "the daemon knows it has been better",
    facts: (good) => ({
      daemon: snapshot(good, ({ gpus }) => ({
        gpus: gpus.map((one) => ({
          ...one,
          health: {
            status: "degraded",
            reasons: [{ code: "pcie_degraded", message: "under load its PCIe link runs at generation 3" }],
          },
        })),
      })),
    }),
    verdict: "warning",
    found: /GPU 0: under load its PCIe link/,
  },
  {
    id: "display",
    when: "one drives a monitor",
    facts: (good) => gpu0(good, { displayActive: true }),
    verdict: "note",
    found: /GPU 0 drives a display/,
  },
  {
    id: "foreign-processes",
    when: "a game runs",
    facts: (good) =>
      inventory(good, {
        processes: new Map([[UUIDS[1], [{ pid: 4711, name: "game.exe", vramUsedMiB: 6000, type: "G" }]]]),
      }),
    verdict: "warning",
    found: /game\.exe \(pid 4711\) with 5\.9 GiB on GPU 1; above 2\.0 GiB it keeps/,
  },
  {
    id: "foreign-processes",
    when: "a desktop runs",
    facts: (good) => ({
      gpus: {
        ...good.gpus,
        inContainers: new Set([4712]),
        inventory: {
          ...good.gpus.inventory,
          processes: new Map([
            [
              UUIDS[0],
              [
                { pid: 4711, name: "Xorg", vramUsedMiB: 120 },
                { pid: 4712, name: "python" },
              ],
            ],
          ]),
        },
      },
    }),
    verdict: "note",
    found: /^Xorg \(pid 4711\) with 120 MiB on GPU 0 and python \(pid 4712\) in a container on GPU 0$/,
  },
  {
    id: "foreign-processes",
    when: "a workload of ours runs",
    facts: (good) => ({
      ...inventory(good, { processes: new Map([[UUIDS[0], [{ pid: 4711, name: "python", vramUsedMiB: 30_000 }]]]) }),
      daemon: snapshot(good, ({ gpus }) => ({
        gpus: gpus.map((one) => ({
          ...one,
          telemetry: { uuid: one.uuid, processes: [{ pid: 4711, workload: "train" }] },
        })),
      })),
    }),
    verdict: "ok",
    found: /nobody/,
  },
  {
    id: "power-limit",
    when: "it is capped",
    facts: (good) => gpu0(good, { powerLimitWatts: 250 }),
    verdict: "note",
    found: /GPU 0 is held to 250 of 400 W/,
    fix: /^nvidia-smi -i 0 -pl 400$/,
  },
  {
    id: "ecc-mode",
    when: "it is off",
    facts: (good) => ({
      ...gpu0(good, { eccEnabled: false }),
      ...raw({ ...good, ...gpu0(good, { eccEnabled: false }) }, "ecc_mode/pending_ecc", "N/A"),
    }),
    verdict: "note",
    found: /ECC is off on GPU 0$/,
    fix: /^nvidia-smi -i 0 -e 1$/,
  },
  {
    id: "ecc-mode",
    when: "it changes at the next reset",
    facts: (good) => raw(good, "ecc_mode/pending_ecc", "Disabled"),
    verdict: "note",
    found: /GPU 0 and 1: ECC changes at the next reset/,
    fix: /^nvidia-smi -i 0,1 --gpu-reset$/,
  },
  {
    id: "compute-mode",
    when: "it is prohibited",
    facts: (good) => gpu0(good, { computeMode: "Prohibited" }),
    verdict: "failure",
    found: /GPU 0: compute mode Prohibited/,
    fix: /^nvidia-smi -i 0 -c 0$/,
  },
  {
    id: "compute-mode",
    when: "it is exclusive",
    facts: (good) => gpu0(good, { computeMode: "Exclusive_Process" }),
    verdict: "warning",
    found: /Exclusive_Process/,
  },
  {
    id: "mig-mode",
    when: "it has no instance",
    facts: (good) => ({
      ...gpu0(good, { mig: { enabled: true, instances: [] } }),
      ...raw({ ...good, ...gpu0(good, { mig: { enabled: true, instances: [] } }) }, "mig_mode/pending_mig", "N/A"),
    }),
    verdict: "failure",
    found: /GPU 0: in MIG mode, without an instance/,
    fix: /^nvidia-smi -i 0 -mig 0$/,
  },
  {
    id: "mig-mode",
    when: "it changes at the next reset",
    facts: (good) => raw(good, "mig_mode/pending_mig", "Enabled"),
    verdict: "warning",
    found: /MIG changes at the next reset/,
  },
  {
    id: "peer-to-peer",
    when: "the IOMMU translates",
    facts: (good) => ({ driver: { ...good.driver, iommuTranslates: true } }),
    verdict: "note",
    found: /IOMMU translates, with 2 GPUs/,
    fix: /iommu=pt/,
  },
  {
    id: "kernel-log",
    when: "the daemon cannot read it",
    facts: (good) => problem(good, "kernel_log_unreadable", "the kernel log /dev/kmsg cannot be read (EPERM)"),
    verdict: "warning",
    found: /cannot be read \(EPERM\)/,
    fix: /^gpunode service install$/,
  },
  {
    id: "kernel-log",
    when: "the service lacks the right",
    facts: (good) => ({ daemon: away, ...unit(good, { capabilities: [] }) }),
    verdict: "warning",
    found: /no CAP_SYSLOG/,
  },
  {
    id: "kernel-log",
    when: "this user cannot read it and there is no service",
    facts: (good) => ({
      daemon: away,
      service: { user: { name: "me", uid: 1000, gids: [1000] } },
      kernelLog: { ...good.kernelLog, problem: "the kernel log /dev/kmsg cannot be read (EPERM)" },
    }),
    verdict: "warning",
    found: /EPERM/,
  },
  {
    id: "kernel-log",
    when: "the service may, though this user may not",
    facts: (good) => ({ daemon: away, kernelLog: { ...good.kernelLog, problem: "EPERM" } }),
    verdict: "ok",
    found: /the service may read/,
  },
];
