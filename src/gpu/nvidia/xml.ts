import { decoded, readTags, type TagHandler } from "./tags.ts";

/** One GPU of a `-q -x` document: text by path below `<gpu>`, e.g. `pci/pci_gpu_link_info/pcie_gen/max_link_gen`. */
export interface SmiGpu {
  /** The `id` attribute: its PCI bus id. */
  id: string;
  /** nvidia-smi's index: its place in the document, counting GPUs of which only an error is told. */
  index: number;
  values: ReadonlyMap<string, string>;
  /** One map for each `<mig_device>`, paths below it. */
  migDevices: readonly ReadonlyMap<string, string>[];
  /** One map for each `<process_info>`, paths below it. */
  processes: readonly ReadonlyMap<string, string>[];
}

/** A document of `nvidia-smi -q -x`. */
export interface SmiDocument {
  driverVersion?: string;
  cudaVersion?: string;
  attachedGpus?: number;
  /** Whole GPUs, in the document's order. */
  gpus: SmiGpu[];
  /** The document breaks off. */
  truncated: boolean;
}

const TEXT_MAX = 64 * 1024;
const DEPTH_MAX = 32;

/**
 * Reads the last whole document of `text`, or the last one at all. Never throws: what cannot be read is left out. Values are
 * raw but for `absentValue`.
 */
export function readSmiXml(text: string): SmiDocument {
  let last: SmiDocument | undefined;
  let whole: SmiDocument | undefined;
  const handler = documentHandler((document) => {
    last = document;
    if (!document.truncated) whole = document;
  });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: nvidia-smi passes them raw from process names, XML has no place for them
  readTags(withoutClockTables(text).replace(/[\x00-\x08\x0b\x0c\x0e-\x1f]/g, ""), handler);
  return whole ?? last ?? { gpus: [], truncated: true };
}

const TABLE_BEGINS = "<supported_clocks>";
const TABLE_ENDS = "</supported_clocks>";

/**
 * Leaves out the clocks each GPU could be set to: nobody asks for them, and they are two thirds of a document. A table holds nothing but
 * clocks, so one that seems to hold a GPU (it breaks off, and another document follows) is left in.
 */
function withoutClockTables(text: string): string {
  const kept: string[] = [];
  let from = 0;
  for (;;) {
    const begins = text.indexOf(TABLE_BEGINS, from);
    const ends = begins < 0 ? -1 : text.indexOf(TABLE_ENDS, begins);
    if (ends < 0) break;
    const inside = begins + TABLE_BEGINS.length;
    const isWhole = !/<(gpu|nvidia_smi_log|process_info)\b/.test(text.slice(inside, ends));
    kept.push(text.slice(from, isWhole ? inside : ends));
    from = ends;
  }
  kept.push(text.slice(from));
  return kept.join("");
}

function documentHandler(found: (document: SmiDocument) => void): TagHandler {
  let document: SmiDocument | undefined;
  let gpu:
    | {
        id: string;
        index: number;
        values: Map<string, string>;
        migDevices: Map<string, string>[];
        processes: Map<string, string>[];
      }
    | undefined;
  let nextIndex = 0;
  let part: { values: Map<string, string>; depth: number } | undefined;
  /** Element names from the root down, and where the text of the innermost one begins. */
  const path: string[] = [];
  let text = "";
  const done = (truncated: boolean) => {
    if (document !== undefined) found({ ...document, truncated });
    document = undefined;
    gpu = undefined;
    part = undefined;
    path.length = 0;
  };
  return {
    open(name, attributes) {
      text = "";
      if (name === "nvidia_smi_log") {
        done(true);
        document = { gpus: [], truncated: true };
        nextIndex = 0;
      }
      path.push(path.length < DEPTH_MAX ? name : "…");
      if (name === "gpu" && path.length === 2) {
        const id = decoded(/\sid="([^"]*)"/.exec(attributes)?.[1] ?? "");
        gpu = { id, index: nextIndex, values: new Map(), migDevices: [], processes: [] };
        nextIndex += 1;
      } else if (name === "error_string" && path.length === 2) {
        // "Unable to determine the device handle/PCI bus id …: GPU is lost" stands in the place of a GPU.
        nextIndex += 1;
      } else if (gpu !== undefined && part === undefined && (name === "mig_device" || name === "process_info")) {
        part = { values: new Map(), depth: path.length };
        (name === "mig_device" ? gpu.migDevices : gpu.processes).push(part.values);
      }
    },
    text(data) {
      if (text.length < TEXT_MAX) text += data;
    },
    close(name, isImplied) {
      const value = text.trim();
      text = "";
      if (document !== undefined && value !== "") {
        if (part !== undefined) part.values.set(path.slice(part.depth).join("/"), value);
        else if (gpu !== undefined) gpu.values.set(path.slice(2).join("/"), value);
        else header(document, path, value);
      }
      if (part !== undefined && path.length === part.depth) part = undefined;
      if (name === "gpu" && path.length === 2 && gpu !== undefined) {
        if (!isImplied) document?.gpus.push(gpu);
        gpu = undefined;
      }
      path.pop();
      if (name === "nvidia_smi_log") done(isImplied);
    },
  };
}

function header(document: SmiDocument, path: readonly string[], told: string): void {
  if (path.length !== 2) return;
  // Driver 610 adds what will become of the name: "13.3 [Deprecated; will be removed in CUDA 14.0. Use CUDA UMD Version instead]".
  const value = told.replace(/ \[.*\]$/, "");
  if (path[1] === "driver_version") document.driverVersion = value;
  else if (path[1] === "cuda_version" && absentValue(value) !== undefined) document.cudaVersion = value;
  else if (path[1] === "attached_gpus" && /^\d+$/.test(value)) document.attachedGpus = Number(value);
}

/** What nvidia-smi prints where it has no value, over all drivers, with and without brackets. */
const ABSENT =
  /^\[?(N\/A|Not Supported|Not Available|Not Found|None|Unknown|Unknown Error|ERR!|GPU is lost|Requested functionality has been deprecated|Insufficient Permissions|No data|Invalid Argument|GPU requires reset)\]?$/i;

/** The value, or undefined where it stands for having none. */
export function absentValue(value: string | undefined): string | undefined {
  return value === undefined || value === "" || ABSENT.test(value) ? undefined : value;
}

/** Longer than any UUID the wire has room for (`GpuUuid`): what is longer is none. */
const UUID_MAX = 120;

/** The value as the UUID of a GPU or MIG instance, or undefined where it is none. */
export function uuidValue(value: string | undefined): string | undefined {
  const uuid = absentValue(value);
  return uuid === undefined || uuid.length > UUID_MAX ? undefined : uuid;
}

/** True where a value says that the GPU has fallen off the bus. */
export function saysLost(value: string): boolean {
  return /^\[?GPU is lost\]?$/i.test(value);
}
