import type { Gpu } from "../../protocol/gpu.ts";
import { busOf, readXid } from "./xid.ts";

/** One kind of Xid of one GPU. */
export interface XidCount {
  gpu: string;
  xid: number;
  count: number;
  /** Milliseconds since the epoch. */
  lastAtMs: number;
}

/** So many kinds on so many boards are kept; a kernel log that names more is not NVIDIA's. */
const KINDS_MOST = 512;

/** Counts the Xids of the kernel's log. */
export class XidTally {
  readonly #counts = new Map<string, { bus: string; xid: number; count: number; lastAtMs: number }>();

  /** A message of the kernel; one that is no Xid is passed over. */
  heard({ atMs, text }: { atMs: number; text: string }): void {
    const xid = readXid(text);
    if (xid === undefined) return;
    const key = `${xid.bus} ${xid.xid}`;
    const before = this.#counts.get(key);
    if (before === undefined && this.#counts.size >= KINDS_MOST) return;
    this.#counts.set(key, { bus: xid.bus, xid: xid.xid, count: (before?.count ?? 0) + 1, lastAtMs: atMs });
  }

  /** Of the GPUs that are known. */
  of(gpus: readonly Pick<Gpu, "uuid" | "pci">[]): XidCount[] {
    const uuids = new Map(gpus.map(({ uuid, pci }) => [busOf(pci?.busId ?? ""), uuid]));
    return [...this.#counts.values()].flatMap(({ bus, xid, count, lastAtMs }) => {
      const gpu = uuids.get(bus);
      return gpu === undefined ? [] : [{ gpu, xid, count, lastAtMs }];
    });
  }
}
