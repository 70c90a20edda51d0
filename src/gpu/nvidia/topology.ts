import type { GpuLink } from "../../protocol/gpu.ts";

/** How one GPU reaches another, by nvidia-smi's index. */
export type IndexLink = Omit<GpuLink, "gpu"> & { index: number };

/** `topo -m`'s words for a way over PCIe. */
const PATHS = ["pix", "pxb", "phb", "node", "sys"] as const;

const INDEX = /^GPU(\d{1,4})$/;

/**
 * Reads `nvidia-smi topo -m`: index of a GPU → how it reaches the others. `NV12` is twelve NVLinks, PIX, PXB, PHB, NODE and SYS
 * are ways over PCIe, from the nearest to the farthest. Columns and rows of network cards are passed over. Never throws.
 */
export function readTopology(text: string): Map<number, IndexLink[]> {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the header is underlined with ANSI escapes
  const lines = text.replace(/\x1b\[[0-9;]*m/g, "").split("\n");
  const links = new Map<number, IndexLink[]>();
  const header = lines.findIndex((line) => /^\s*GPU0\b/.test(line) && !/\bX\b/.test(line));
  if (header < 0) return links;
  const columns = (lines[header] ?? "").split("\t").map((cell) => INDEX.exec(cell.trim())?.[1]);
  for (const line of lines.slice(header + 1)) {
    const cells = line.split("\t").map((cell) => cell.trim());
    const row = INDEX.exec(cells[0] ?? "")?.[1];
    if (row === undefined) continue;
    const reached: IndexLink[] = [];
    columns.forEach((column, position) => {
      const cell = cells[position];
      if (column === undefined || cell === undefined || cell === "X" || cell === "" || column === row) return;
      const count = /^NV(\d{1,4})$/.exec(cell)?.[1];
      const index = Number(column);
      const path = PATHS.find((word) => word === cell.toLowerCase());
      if (count !== undefined) reached.push({ index, kind: "nvlink", count: Number(count) });
      else reached.push({ index, kind: "pcie", ...(path !== undefined && { path }) });
    });
    links.set(Number(row), reached);
  }
  return links;
}
