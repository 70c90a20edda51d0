import type { Facts } from "../../../src/doctor/facts.ts";
import { type Case, config } from "./case.ts";

export const HOST_CASES: readonly Case[] = [
  {
    id: "platform",
    when: "all of it is old",
    facts: (good) => ({
      system: { ...good.system, kernel: "3.10.0-1160.el7", glibc: "2.17", node: "v20.1.0", architecture: "ia32" },
    }),
    verdict: "failure",
    found: /ia32.*3\.10\.0.*glibc is 2\.17.*Node is v20\.1\.0/,
  },
  {
    id: "reboot-required",
    when: "a package asks for one",
    facts: (good) => ({ system: { ...good.system, rebootFor: ["linux-image-amd64"] } }),
    verdict: "note",
    found: /a reboot is due: for linux-image-amd64/,
    fix: /^gpunode drain$/,
  },
  {
    id: "reboot-required",
    when: "a newer kernel waits",
    facts: (good) => ({ system: { ...good.system, kernels: [...good.system.kernels, "6.1.0-33-amd64"] } }),
    verdict: "note",
    found: /kernel 6\.1\.0-33-amd64 is installed, 6\.1\.0-32-amd64 runs/,
  },
  {
    id: "driver-upgrades",
    when: "the driver is upgraded by night",
    facts: () => ({ upgrades: { by: "unattended-upgrades", loose: ["libcuda1", "nvidia-driver"] } }),
    verdict: "warning",
    found: /unattended-upgrades may upgrade libcuda1 and nvidia-driver while work runs/,
    fix: /^apt-mark hold libcuda1 nvidia-driver$/,
    auto: "named",
  },
  {
    id: "driver-upgrades",
    when: "dnf-automatic does",
    facts: () => ({ upgrades: { by: "dnf-automatic", loose: ["akmod-nvidia"] } }),
    verdict: "warning",
    found: /dnf-automatic/,
    fix: /^dnf versionlock add akmod-nvidia$/,
    auto: "named",
  },
  {
    id: "sleep",
    when: "it is a laptop with a desktop",
    facts: (good) => ({
      sleep: { ...good.sleep, open: ["suspend.target"], hasLid: true, hasDesktop: true, idleAction: "suspend" },
    }),
    verdict: "warning",
    found: /closing the lid.*IdleAction is suspend.*desktop/,
    fix: /^systemctl mask suspend\.target$/,
    auto: "named",
  },
  {
    id: "sleep",
    when: "it is a server",
    facts: (good) => ({ sleep: { ...good.sleep, open: ["suspend.target"] } }),
    verdict: "ok",
    found: /by itself/,
  },
  {
    id: "memory",
    when: "something waits for it",
    facts: (good) => ({ memory: { ...good.memory, stallPercent: 35 } }),
    verdict: "warning",
    found: /waited for memory 35 %/,
  },
  {
    id: "memory",
    when: "it is used up",
    facts: (good) => ({ memory: { ...good.memory, availableMiB: 3_000 } }),
    verdict: "warning",
    found: /only 2\.9 GiB of 125 GiB/,
  },
  {
    id: "memory",
    when: "the owner's reserve is all there is",
    facts: (good) => ({
      memory: { ...good.memory, availableMiB: 20_000 },
      config: config(good, {
        policy: { ...good.config.config.policy, reserve: { cpus: 0, memoryMiB: 32_000, diskMiB: 0 } },
      }),
    }),
    verdict: "warning",
    found: /no work fits/,
  },
  {
    id: "memory",
    when: "the swap is full",
    facts: (good) => ({ memory: { ...good.memory, swapFreeMiB: 100 } }),
    verdict: "note",
    found: /swap is nearly full/,
  },
  {
    id: "oom-score",
    when: "it would go first",
    facts: (good) => ({ daemon: { ...good.daemon, oomScoreAdj: 900 } as Facts["daemon"] }),
    verdict: "warning",
    found: /900 points/,
    fix: /OOMScoreAdjust/,
  },
];
