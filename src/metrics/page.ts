import { DCGM_FAMILIES } from "./dcgm.ts";
import { GPU_FAMILIES } from "./gpus.ts";
import { NODE_FAMILIES } from "./node.ts";
import { NVIDIA_SMI_FAMILIES } from "./nvidia-smi.ts";
import { PROCESS_FAMILIES } from "./process.ts";
import type { Description } from "./text.ts";
import { WORKLOAD_FAMILIES } from "./workloads.ts";

/** The tables of docs/metrics.md, each between its marks. */
const TABLES: Readonly<Record<string, readonly Description[]>> = {
  node: NODE_FAMILIES,
  gpus: GPU_FAMILIES,
  workloads: WORKLOAD_FAMILIES,
  dcgm: DCGM_FAMILIES,
  "nvidia-smi": NVIDIA_SMI_FAMILIES,
  process: PROCESS_FAMILIES,
};

/** The page with its tables as the code has them. */
export function metricsPage(page: string): string {
  let text = page;
  for (const [name, families] of Object.entries(TABLES)) {
    const marked = new RegExp(`(<!-- ${name} -->\\n)[^]*?(<!-- /${name} -->)`);
    text = text.replace(marked, (_, from: string, to: string) => `${from}${table(families).join("\n")}\n${to}`);
  }
  return text;
}

function table(families: readonly Description[]): string[] {
  // What all families of a table have is said once, above it.
  const common = families.every(({ labels }) => labels.join() === families[0]?.labels.join());
  const head = common
    ? ["| family | type | |", "|---|---|---|"]
    : ["| family | type | labels | |", "|---|---|---|---|"];
  return [
    ...head,
    ...families.map(({ name, type, labels, help }) => {
      const cells = [`\`${name}\``, type, ...(common ? [] : [labels.map((label) => `\`${label}\``).join(" ")]), help];
      return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
    }),
  ];
}
