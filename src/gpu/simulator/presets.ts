/** The machines that can be simulated by name; each is a scenario as a file would hold it. */
export const presets: Readonly<Record<string, unknown>> = {
  /** Eight H100 of one NVSwitch board. */
  h100x8: { driver: "580", seed: "h100x8", gpus: [{ model: "h100-sxm-80gb", count: 8 }] },
  /** Four A100, the first two cut by MIG: three-and-four-way shares, and one unequal set. */
  "a100x4-mig": {
    driver: "550",
    seed: "a100x4-mig",
    gpus: [
      { model: "a100-sxm4-40gb", mig: ["3g.20gb", "3g.20gb"] },
      { model: "a100-sxm4-40gb", mig: ["3g.20gb", "2g.10gb", "1g.5gb", "1g.5gb"] },
      { model: "a100-sxm4-40gb", count: 2 },
    ],
  },
  rtx4090x2: { driver: "550", seed: "rtx4090x2", gpus: [{ model: "rtx-4090", count: 2 }] },
  t4: { driver: "535", seed: "t4", gpus: [{ model: "t4" }] },
  /** A driver without a GPU. */
  none: { driver: "580", gpus: [] },
  /** The GPUs are there, the kernel module is not. */
  "broken-driver": { driver: "580", gpus: [{ model: "rtx-4090" }], faults: [{ kind: "driverMissing" }] },
};
