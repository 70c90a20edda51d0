/** How one GPU reaches another, by nvidia-smi's index. */
export interface IndexLink {
  index: number;
  kind: "nvlink" | "pcie";
  /** NVLinks between the two. */
  count?: number;
}

/**
 * Reads `nvidia-smi topo -m`: index of a GPU → how it reaches the others. `NV12` is twelve NVLinks, everything else (PIX, PXB,
 * PHB, NODE, SYS) goes over PCIe. Columns and rows of network cards are passed over. Never throws.
 */
export function readTopology(text: string): Map<number, IndexLink[]> {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the header is underlined with ANSI escapes
  const lines = text.replace(/\x1b\[[0-9;]*m/g, "").split("\n");
  const links = new Map<number, IndexLink[]>();
  const header = lines.findIndex((line) => /^\s*GPU0\b/.test(line) && !/\bX\b/.test(line));
  if (header < 0) return links;
  const columns = (lines[header] ?? "").split("\t").map((cell) => /^GPU(\d+)$/.exec(cell.trim())?.[1]);
  for (const line of lines.slice(header + 1)) {
    const cells = line.split("\t").map((cell) => cell.trim());
    const row = /^GPU(\d+)$/.exec(cells[0] ?? "")?.[1];
    if (row === undefined) continue;
    const reached: IndexLink[] = [];
    columns.forEach((column, position) => {
      const cell = cells[position];
      if (column === undefined || cell === undefined || cell === "X" || cell === "" || column === row) return;
      const count = /^NV(\d+)$/.exec(cell)?.[1];
      const index = Number(column);
      reached.push(count === undefined ? { index, kind: "pcie" } : { index, kind: "nvlink", count: Number(count) });
    });
    links.set(Number(row), reached);
  }
  return links;
}
