import { look } from "../healthy.ts";
import { type Case, inventory, os, smiFails } from "./case.ts";

export const DRIVER_CASES: readonly Case[] = [
  {
    id: "nvidia-smi",
    when: "it is not installed, on Debian",
    facts: (good) => smiFails(good, "not_found", "nvidia-smi was not found"),
    verdict: "failure",
    found: /was not found/,
    fix: /^apt-get install linux-headers-amd64 nvidia-driver nvidia-smi$/,
  },
  {
    id: "nvidia-smi",
    when: "it is not installed, on Ubuntu",
    facts: (good) => ({
      ...smiFails(good, "not_found", "nvidia-smi was not found"),
      system: os(good, "ubuntu", ["debian"]),
    }),
    verdict: "failure",
    found: /was not found/,
    fix: /^ubuntu-drivers install$/,
  },
  {
    id: "nvidia-smi",
    when: "it is not installed, on Fedora",
    facts: (good) => ({ ...smiFails(good, "not_found", "nvidia-smi was not found"), system: os(good, "fedora", []) }),
    verdict: "failure",
    found: /was not found/,
    fix: /^dnf install akmod-nvidia/,
  },
  {
    id: "nvidia-smi",
    when: "the module is there and not loaded, with Secure Boot",
    facts: (good) => ({
      ...smiFails(good, "no_driver", "the NVIDIA kernel module is not loaded"),
      driver: { ...good.driver, hasSecureBoot: true },
    }),
    verdict: "failure",
    found: /not loaded/,
    fix: /Secure Boot is on/,
  },
  {
    id: "nvidia-smi",
    when: "there is no board at all",
    facts: (good) => ({
      ...smiFails(good, "not_found", "nvidia-smi was not found"),
      driver: { ...good.driver, boards: [] },
    }),
    verdict: "warning",
    found: /no NVIDIA board/,
  },
  {
    id: "nvidia-smi",
    when: "it hangs",
    facts: (good) => smiFails(good, "timeout", "nvidia-smi has not answered within 12 s"),
    verdict: "failure",
    found: /has not answered/,
    fix: /^reboot$/,
  },
  {
    id: "nvidia-smi",
    when: "a GPU is missing",
    facts: (good) =>
      inventory(good, { problems: [{ code: "gpu_lost", message: "the driver has 3 GPUs attached, 2 answer" }] }),
    verdict: "failure",
    found: /3 GPUs attached, 2 answer/,
  },
  {
    id: "driver-match",
    when: "nvidia-smi says so",
    facts: (good) => ({
      ...smiFails(good, "driver_mismatch", "the loaded kernel module and the driver's library have different versions"),
      driver: { ...good.driver, libraries: ["550.163.01", "535.261.03"], loaded: "535.247.01" },
    }),
    verdict: "failure",
    found: /module 535\.247\.01, the library is 550\.163\.01 and 535\.261\.03/,
    fix: /^reboot$/,
  },
  {
    id: "driver-match",
    when: "the files say so",
    facts: (good) => ({ driver: { ...good.driver, libraries: ["550.167.02"] } }),
    verdict: "failure",
    found: /module 550\.163\.01, the library is 550\.167\.02/,
    fix: /^modprobe -r nvidia_drm nvidia_modeset nvidia_uvm nvidia$/,
  },
  {
    id: "nouveau",
    when: "it holds a board",
    facts: (good) => ({
      driver: { ...good.driver, boards: [{ address: "0000:01:00.0", driver: "nouveau" }], isNouveauLoaded: true },
    }),
    verdict: "failure",
    found: /nouveau, the free driver, holds 0000:01:00\.0/,
    fix: /nvidia-driver/,
  },
  {
    id: "nouveau",
    when: "it is loaded beside",
    facts: (good) => ({ driver: { ...good.driver, isNouveauLoaded: true } }),
    verdict: "warning",
    found: /nouveau is loaded/,
    fix: /^printf 'blacklist nouveau\\n' \| tee \/etc\/modprobe\.d\/blacklist-nouveau\.conf$/,
  },
  {
    id: "nouveau",
    when: "a board is a virtual machine's",
    facts: (good) => ({ driver: { ...good.driver, boards: [{ address: "0000:01:00.0", driver: "vfio-pci" }] } }),
    verdict: "note",
    found: /vfio-pci/,
  },
  {
    id: "driver-next-boot",
    when: "the newest kernel has no module",
    facts: (good) => ({ system: { ...good.system, kernels: [...good.system.kernels, "6.1.0-33-amd64"] } }),
    verdict: "warning",
    found: /kernel 6\.1\.0-33-amd64 is installed and has no NVIDIA module/,
    fix: /^apt-get install linux-headers-6\.1\.0-33-amd64$/,
  },
  {
    id: "device-files",
    when: "nvidia-uvm is missing",
    facts: (good) => ({
      driver: {
        ...good.driver,
        devices: new Map([...good.driver.devices].filter(([path]) => path !== "/dev/nvidia-uvm")),
      },
    }),
    verdict: "note",
    found: /\/dev\/nvidia-uvm is not there/,
    fix: /^nvidia-modprobe -u -c 0$/,
    auto: "safe",
  },
  {
    id: "device-files",
    when: "they are closed",
    facts: (good) => ({
      driver: {
        ...good.driver,
        devices: new Map([...good.driver.devices].map(([path]) => [path, look("device", 0o660)])),
      },
    }),
    verdict: "warning",
    found: /closed to ordinary users, such as gpunode/,
    fix: /NVreg_DeviceFileMode/,
  },
];
