import type { Line } from "./line.ts";

/** Lines that are shown together or not at all. */
export interface Block {
  lines: readonly Line[];
  /** 0 is the most important: what has a higher one goes first where the window is low. */
  rank: number;
  /** The list it is an entry of: none is shown behind one that is left out. */
  list?: string;
}

/** How many lines the blocks up to this rank take. */
export function heightUpTo(rank: number, blocks: readonly Block[]): number {
  return blocks.reduce((sum, block) => sum + (block.rank <= rank ? block.lines.length : 0), 0);
}

/**
 * What of `blocks` fits into `rows` lines, in their order. Where entries of lists are left out, the last line says how many: `more` has
 * them by list.
 */
export function fitRows(
  blocks: readonly Block[],
  rows: number,
  more: (hidden: ReadonlyMap<string, number>) => Line,
): { lines: Line[]; isWhole: boolean } {
  const all = choose(blocks, rows);
  if (blocks.every((block) => block.list === undefined || all.has(block)))
    return { lines: linesOf(blocks, all), isWhole: true };
  const some = choose(blocks, rows - 1);
  const hidden = new Map<string, number>();
  for (const block of blocks) {
    if (block.list !== undefined && !some.has(block)) hidden.set(block.list, (hidden.get(block.list) ?? 0) + 1);
  }
  return { lines: [...linesOf(blocks, some), more(hidden)], isWhole: false };
}

function linesOf(blocks: readonly Block[], kept: ReadonlySet<Block>): Line[] {
  return blocks.flatMap((block) => (kept.has(block) ? block.lines : []));
}

function choose(blocks: readonly Block[], rows: number): ReadonlySet<Block> {
  const kept = new Set<Block>();
  const cutOff = new Set<string>();
  let left = rows;
  for (const block of [...blocks].sort((a, b) => a.rank - b.rank)) {
    if (block.list !== undefined && cutOff.has(block.list)) continue;
    if (block.lines.length > left) {
      if (block.list !== undefined) cutOff.add(block.list);
      continue;
    }
    kept.add(block);
    left -= block.lines.length;
  }
  return kept;
}
