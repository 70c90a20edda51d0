import { look } from "../healthy.ts";
import { type Case, config } from "./case.ts";

export const DISK_CASES: readonly Case[] = [
  {
    id: "disk-space",
    when: "little is left",
    facts: (good) => ({ disk: { ...good.disk, images: { ...good.disk.images, freeMiB: 9_000 } as never } }),
    verdict: "warning",
    found: /8\.8 GiB of 391 GiB are free at \/var\/lib\/docker/,
    fix: /^docker system df$/,
  },
  {
    id: "disk-space",
    when: "the owner's reserve is all there is",
    facts: (good) => ({
      disk: { ...good.disk, images: { ...good.disk.images, freeMiB: 40_000 } as never },
      config: config(good, {
        policy: { ...good.config.config.policy, reserve: { cpus: 0, memoryMiB: 0, diskMiB: 50_000 } },
      }),
    }),
    verdict: "failure",
    found: /policy\.reserve\.disk_mib keeps 49 GiB back/,
  },
  {
    id: "disk-space",
    when: "inodes are used up",
    facts: (good) => ({ disk: { ...good.disk, images: { ...good.disk.images, freeInodesPercent: 0.5 } as never } }),
    verdict: "failure",
    found: /no inodes/,
  },
  {
    id: "disk-space",
    when: "the state has no room",
    facts: (good) => ({ disk: { ...good.disk, state: { ...good.disk.state, freeMiB: 100 } as never } }),
    verdict: "failure",
    found: /100 MiB are free at \/var\/lib\/gpunode/,
  },
  {
    id: "disk-speed",
    when: "it is a slow one",
    facts: () => ({ diskSpeed: { path: "/var/lib/docker", writeMiBps: 21.4, syncMs: 8.3 } }),
    verdict: "warning",
    found: /21 MiB\/s at \/var\/lib\/docker, 8\.3 ms/,
    fix: /SSD/,
  },
  {
    id: "disk-speed",
    when: "each small write takes long",
    facts: () => ({ diskSpeed: { path: "/var/lib/docker", writeMiBps: 300, syncMs: 80 } }),
    verdict: "warning",
    found: /80 ms/,
  },
  {
    id: "state-dir",
    when: "it is root's",
    facts: (good) => ({ state: { ...good.state, look: look("folder", 0o700) } }),
    verdict: "failure",
    found: /belongs to uid 0, and the daemon runs as gpunode \(990\)/,
    fix: /^chown -R gpunode: \/var\/lib\/gpunode$/,
    auto: "safe",
  },
  {
    id: "state-dir",
    when: "it is open, and the key in it, too",
    facts: (good) => ({
      state: { ...good.state, look: look("folder", 0o755, 990, 990), openSecrets: ["identity.pem"] },
    }),
    verdict: "failure",
    found: /mode 0755 and others may read \/var\/lib\/gpunode\/identity\.pem/,
    fix: /^chmod 0600 \/var\/lib\/gpunode\/identity\.pem$/,
    auto: "safe",
  },
  {
    id: "state-dir",
    when: "it is open",
    facts: (good) => ({ state: { ...good.state, look: look("folder", 0o755, 990, 990) } }),
    verdict: "warning",
    found: /mode 0755/,
    fix: /^chmod 0700 \/var\/lib\/gpunode$/,
    auto: "safe",
  },
  {
    id: "state-dir",
    when: "it is open, and somebody else's files lie in it",
    facts: (good) => ({ state: { ...good.state, look: look("folder", 0o1777, 990, 990), isOwn: false } }),
    verdict: "warning",
    found: /mode 0777/,
    fix: /^chmod 0700/,
  },
  {
    id: "state-dir",
    when: "it is no folder",
    facts: (good) => ({ state: { ...good.state, look: look("file", 0o600, 990) } }),
    verdict: "failure",
    found: /no folder/,
  },
];
