import { mib } from "../local/in-words.ts";
import type { Gpu } from "../protocol/gpu.ts";
import { healthCell } from "./status-view.ts";
import { type Cell, printable, renderTable, type TableOptions } from "./table.ts";

/** What the GPUs are and can do, for a person. */
export function gpusInWords(gpus: readonly Gpu[], options: TableOptions): string {
  const rows = gpus.flatMap((gpu): Cell[][] => [
    [
      String(gpu.index),
      gpu.name,
      gpu.vramMiB === undefined ? "-" : mib(gpu.vramMiB),
      gpu.computeCapability ?? "-",
      gpu.tensorCores?.precisions.join(" ") || "-",
      pcie(gpu),
      gpu.eccEnabled === undefined ? "-" : gpu.eccEnabled ? "on" : "off",
      healthCell(gpu),
    ],
    ...(gpu.mig?.instances ?? []).map(({ profile, vramMiB }): Cell[] => ["", `  MIG ${profile}`, mib(vramMiB)]),
  ]);
  const columns = [
    { title: "GPU", align: "right" as const },
    { title: "NAME", shrinks: true as const },
    { title: "VRAM", align: "right" as const },
    { title: "CC" },
    { title: "PRECISIONS", shrinks: true as const },
    { title: "PCIE" },
    { title: "ECC" },
    { title: "HEALTH" },
  ];
  const driver = gpus.find(({ driverVersion }) => driverVersion !== undefined);
  const versions =
    driver === undefined ? "" : `\nDriver ${driver.driverVersion}, CUDA ${driver.cudaVersion ?? "unknown"}\n`;
  const reasons = gpus.flatMap(({ index, health }) =>
    health.reasons.map(({ message }) => `GPU ${index} is ${health.status}: ${printable(message)}\n`),
  );
  return renderTable(columns, rows, options) + versions + reasons.join("");
}

/** "4.0 ×16": the link as it is; "4.0 ×8 of ×16" where it could be more. */
function pcie({ pci }: Gpu): string {
  const { linkGeneration, linkGenerationMax, linkWidth, linkWidthMax } = pci ?? {};
  if (linkWidth === undefined && linkGenerationMax === undefined) return "-";
  const generation = linkGenerationMax ?? linkGeneration;
  const width = linkWidth === undefined ? "" : `×${linkWidth}`;
  const narrower = linkWidth !== undefined && linkWidthMax !== undefined && linkWidth < linkWidthMax;
  return [...(generation === undefined ? [] : [`${generation}.0`]), width, ...(narrower ? [`of ×${linkWidthMax}`] : [])]
    .filter((part) => part !== "")
    .join(" ");
}
