import { A100_40, A100_80, H100, H200, L40S, T4, V100 } from "./boards-datacenter.ts";
import { GB10, RTX_3080, RTX_4090 } from "./boards-geforce.ts";
import type { GpuProfile } from "./gpu-profile.ts";

/**
 * The models a scenario can name. Sources: NVIDIA's data sheets for capability, memory and power; clocks, thresholds, part
 * numbers and reserved memory as boards of that model report them to nvidia-smi.
 */
export const profiles: Readonly<Record<string, GpuProfile>> = {
  "h100-sxm-80gb": H100,
  "h200-sxm-141gb": H200,
  "a100-sxm4-40gb": A100_40,
  "a100-sxm4-80gb": A100_80,
  l40s: L40S,
  "rtx-4090": RTX_4090,
  "rtx-3080": RTX_3080,
  t4: T4,
  "v100-pcie-32gb": V100,
  gb10: GB10,
};
