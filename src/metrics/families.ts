import { DCGM_FAMILIES } from "./dcgm.ts";
import type { Family, Figures } from "./figures.ts";
import { GPU_FAMILIES } from "./gpus.ts";
import { NODE_FAMILIES } from "./node.ts";
import { NVIDIA_SMI_FAMILIES } from "./nvidia-smi.ts";
import { PROCESS_FAMILIES } from "./process.ts";
import { exposition } from "./text.ts";
import { WORKLOAD_FAMILIES } from "./workloads.ts";

/** Everything there is to scrape, in the order it is told. */
export const FAMILIES: readonly Family[] = [
  ...NODE_FAMILIES,
  ...GPU_FAMILIES,
  ...WORKLOAD_FAMILIES,
  ...DCGM_FAMILIES,
  ...NVIDIA_SMI_FAMILIES,
  ...PROCESS_FAMILIES,
];

/** What `/metrics` answers. Pure. */
export function metricsText(figures: Figures): string {
  return exposition(FAMILIES.map((family) => [family, family.samples(figures)] as const));
}
