/**
 * Xid: how NVIDIA's driver tells the kernel log of a fault. Source of the table: NVIDIA, "XID Errors" (docs.nvidia.com/deploy/xid-errors),
 * with its catalogue of recommended actions; NVLink 5 codes (144–150) carry their severity in the text.
 */

/** What an Xid means for the GPU. */
export type XidClass =
  /** A fault of the program that ran: it is told of, and the GPU is as good as before. */
  | "application"
  /** Something that works less well, or may soon not work. */
  | "warning"
  /** The GPU computes wrongly or not at all until it is reset. */
  | "reset"
  /** Only a reboot, a power cycle or a new board helps. */
  | "reboot";

export interface XidRow {
  xid: number;
  class: XidClass;
  meaning: string;
}

export const XIDS: readonly XidRow[] = [
  {
    xid: 13,
    class: "application",
    meaning: "graphics engine exception: a program's access out of bounds or illegal instruction",
  },
  {
    xid: 31,
    class: "application",
    meaning: "GPU memory page fault: a program's access to an address that is not its own",
  },
  { xid: 32, class: "warning", meaning: "corrupted push buffer: look at the PCIe connection" },
  { xid: 38, class: "reset", meaning: "driver firmware error" },
  { xid: 43, class: "application", meaning: "the GPU stopped a program that faulted" },
  { xid: 44, class: "warning", meaning: "graphics engine fault during a context switch" },
  { xid: 45, class: "application", meaning: "a program's work was cleaned up after an earlier error" },
  { xid: 46, class: "reset", meaning: "the GPU stopped processing" },
  { xid: 48, class: "reset", meaning: "double-bit ECC error: data in the GPU's memory was lost" },
  { xid: 54, class: "reboot", meaning: "the board's auxiliary power is not connected" },
  { xid: 61, class: "reset", meaning: "internal micro-controller breakpoint" },
  { xid: 62, class: "reset", meaning: "internal micro-controller halt" },
  { xid: 63, class: "warning", meaning: "a broken memory row or page was recorded and is replaced at the next reset" },
  { xid: 64, class: "reset", meaning: "a broken memory row or page could not be recorded" },
  { xid: 68, class: "application", meaning: "video decoder exception" },
  { xid: 69, class: "application", meaning: "graphics engine class error" },
  { xid: 73, class: "warning", meaning: "video encoder error" },
  { xid: 74, class: "warning", meaning: "NVLink error: look at the link to its neighbour" },
  {
    xid: 79,
    class: "reboot",
    meaning: "the GPU has fallen off the bus: power-cycle the machine; check its power and riser if it happens again",
  },
  { xid: 81, class: "warning", meaning: "display subsystem error" },
  { xid: 92, class: "warning", meaning: "many single-bit ECC errors" },
  { xid: 94, class: "warning", meaning: "contained ECC error: the program it hit was ended, others were not" },
  { xid: 95, class: "reset", meaning: "uncontained ECC error: all work on the GPU may hold wrong data" },
  { xid: 109, class: "reset", meaning: "a context switch timed out" },
  { xid: 110, class: "reset", meaning: "security fault" },
  { xid: 119, class: "reset", meaning: "the GPU's system processor (GSP) does not answer" },
  { xid: 120, class: "reset", meaning: "error of the GPU's system processor (GSP)" },
  { xid: 121, class: "warning", meaning: "corrected error on the link between CPU and GPU (C2C)" },
  { xid: 122, class: "warning", meaning: "the board's SPI flash could not be read" },
  { xid: 123, class: "warning", meaning: "the board's SPI flash could not be written" },
  { xid: 136, class: "reset", meaning: "link training failed" },
  { xid: 137, class: "application", meaning: "NVLink access without permission" },
  { xid: 140, class: "reset", meaning: "ECC error that could not be recovered" },
  { xid: 143, class: "reset", meaning: "the GPU could not be initialized" },
  { xid: 151, class: "warning", meaning: "key rotation failed" },
  { xid: 155, class: "warning", meaning: "NVLink error told by software" },
  { xid: 156, class: "warning", meaning: "a broken resource was recorded and is retired at the next reset" },
  { xid: 157, class: "reset", meaning: "a broken resource could not be retired" },
  { xid: 158, class: "reset", meaning: "fatal time-out of the GPU" },
];

const BY_NUMBER = new Map(XIDS.map((row) => [row.xid, row]));

/** NVLink 5: `… Fatal …` or `… Nonfatal …` in the text says how bad it is. */
const NVLINK5 = { first: 144, last: 150 } as const;

/** The driver says what it takes to recover: `GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)`. */
export const XID_RECOVERY_ACTION = 154;

/** One Xid message, read. */
export interface Xid {
  /** `0000:3b:00`, as `busOf` writes it. */
  bus: string;
  xid: number;
  class: XidClass;
  /** What it means, and the driver's own words. */
  message: string;
  /** Of Xid 154: what the driver now asks for; "none" where all is well again. */
  recovery?: "none" | "reset" | "reboot" | "drain";
}

const XID = /NVRM: (?:GPU at PCI:\S+: .*)?Xid \((?:PCI:)?([0-9a-fA-F:.]+)\)?(?:[^:]*)?: (\d{1,6}),?\s*(.*)/;

/** Reads a message of the kernel; undefined where it is no Xid. Whatever it holds is data, not trusted. */
export function readXid(text: string): Xid | undefined {
  const [, address = "", number = "", rest = ""] = XID.exec(text) ?? [];
  const bus = busOf(address);
  if (bus === undefined || number === "") return undefined;
  const xid = Number(number);
  const words = printable(rest).trim().slice(0, 200);
  const told = words === "" ? "" : ` (${words})`;
  if (xid === XID_RECOVERY_ACTION) {
    const recovery = recoveryOf(/ to 0x[0-9a-f]+ \(([^)]*)\)/i.exec(rest)?.[1] ?? "");
    const kind = recovery === "none" ? "application" : recovery === "drain" ? "warning" : recovery;
    return { bus, xid, class: kind, message: `Xid 154: ${words}`, recovery };
  }
  const row = BY_NUMBER.get(xid);
  if (row !== undefined) return { bus, xid, class: row.class, message: `Xid ${xid}: ${row.meaning}${told}` };
  if (xid >= NVLINK5.first && xid <= NVLINK5.last) {
    const isFatal = /\bFatal\b/.test(rest);
    return { bus, xid, class: isFatal ? "reset" : "warning", message: `Xid ${xid}: NVLink error${told}` };
  }
  return { bus, xid, class: "application", message: `Xid ${xid}${told}` };
}

/** What `gpu_recovery_action` and Xid 154 ask for. Unknown words count as a reset: better one too many. */
export function recoveryOf(words: string): NonNullable<Xid["recovery"]> {
  if (/^none$/i.test(words.trim())) return "none";
  if (/reboot/i.test(words)) return "reboot";
  if (/drain/i.test(words)) return "drain";
  return "reset";
}

/** A fault of an NVSwitch, which the GPUs on it share. */
export interface SXid {
  sxid: number;
  isFatal: boolean;
  message: string;
}

/**
 * Reads `nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up`; undefined where it is none, or only
 * further data of one. Source: NVIDIA, "Fabric Manager User Guide", NVSwitch SXid errors.
 */
export function readSXid(text: string): SXid | undefined {
  const [, device, number, severity, rest = ""] =
    /nvidia-nvswitch(\d+): SXid \(PCI:[0-9a-fA-F:.]+\): (\d{1,6}), (Fatal|Non-fatal)\b,?\s*(.*)/.exec(text) ?? [];
  if (number === undefined) return undefined;
  const words = printable(rest).trim().slice(0, 200);
  const isFatal = severity === "Fatal";
  return { sxid: Number(number), isFatal, message: `NVSwitch ${device}: SXid ${number}, ${severity}: ${words}` };
}

/** The driver was loaded: what it said before is over. */
export function isDriverLoad(text: string): boolean {
  return /NVRM: loading NVIDIA UNIX/.test(text);
}

/** A PCI address without its function, domain in four digits: `00000000:3B:00.0` and `0000:3b:00` are the same. */
export function busOf(address: string): string | undefined {
  const [, domain = "", bus, device] =
    /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.[0-9a-f])?$/i.exec(address) ?? [];
  if (bus === undefined || device === undefined) return undefined;
  return `${domain.slice(-4).padStart(4, "0")}:${bus}:${device}`.toLowerCase();
}

function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what it takes out
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, " ");
}
