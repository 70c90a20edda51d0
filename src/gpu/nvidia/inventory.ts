import type { Gpu, GpuTelemetry, MigInstance } from "../../protocol/gpu.ts";
import { capabilityOfName, computeCapabilities } from "./compute-capability.ts";
import { leadingCount, leadingFigure } from "./figures.ts";
import { healthOf } from "./health.ts";
import { tensorCoresOf } from "./precision.ts";
import { propertyOf } from "./properties.ts";
import type { Smi, SmiProblem } from "./runner.ts";
import { readTopology } from "./topology.ts";
import { absentValue, readSmiXml, type SmiDocument, type SmiGpu, uuidValue } from "./xml.ts";
import { migUuid, sampleOf } from "./xml-sample.ts";

/** A process on a GPU as nvidia-smi tells it. */
export interface SmiProcess {
  pid: number;
  name: string;
  vramUsedMiB?: number;
  /** Computes, draws, or both. */
  type?: "C" | "G" | "C+G";
  /** The instance it is on, where the GPU is split. */
  migUuid?: string;
}

/** Everything nvidia-smi tells of the GPUs here. */
export interface Inventory {
  gpus: Gpu[];
  /** Why there are none, or fewer than there should be. */
  problems: SmiProblem[];
  driverVersion?: string;
  cudaVersion?: string;
  /** uuid of the GPU → processes on it. */
  processes: Map<string, SmiProcess[]>;
  /** What the same read says of utilization, memory, power, temperatures and clocks. Lost GPUs have none. */
  samples: GpuTelemetry[];
  /** uuid → every value of the GPU, by its path in the document. */
  raw?: ReadonlyMap<string, ReadonlyMap<string, string>>;
  /** Rows to expect of each GPU sample: GPUs the driver gives a handle of, lost ones too. */
  rows: number;
  /** Why this read could not tell of all the GPUs. One it does not name may well be there. */
  failed?: SmiProblem;
}

/** What is asked besides, kept while driver and GPUs are the same. */
export interface BesideMemory {
  of?: string;
  capabilities?: ReadonlyMap<string, string>;
  topology?: string;
}

/** What `-q -x` does not tell, from commands of their own. */
export interface Beside {
  /** uuid → compute capability. */
  capabilities: ReadonlyMap<string, string>;
  /** Text of `topo -m`. */
  topology: string;
  /** Text of `-L`. */
  listing: string;
}

/**
 * Reads the GPUs now. Never rejects: what goes wrong is in `problems`, and what was read all the same is told. With `memory`, what
 * changes only with driver and GPUs is not asked again.
 */
export async function readInventory(
  smi: Smi,
  { signal, memory = {} }: { signal?: AbortSignal; memory?: BesideMemory } = {},
): Promise<Inventory> {
  const how = signal === undefined ? {} : { signal };
  const result = await smi.run(["-q", "-x"], how);
  if (!result.ok) {
    const { problem } = result;
    const nothing = { gpus: [], problems: [problem], processes: new Map(), samples: [], rows: 0 };
    // The driver works and has no GPU: that is an answer.
    return problem.code === "no_devices" ? nothing : { ...nothing, failed: problem };
  }
  const document = readSmiXml(result.stdout);
  const uuids = document.gpus.map(({ values }) => uuidValue(values.get("uuid")));
  const of = JSON.stringify([document.driverVersion, uuids]);
  if (memory.of !== of) {
    delete memory.capabilities;
    delete memory.topology;
    memory.of = of;
  }
  const hasMig = document.gpus.some(({ values }) => values.get("mig_mode/current_mig") === "Enabled");
  const hasHole = uuids.includes(undefined);
  const capabilities =
    document.gpus.length === 0
      ? new Map<string, string>()
      : (memory.capabilities ?? (await computeCapabilities(smi, signal)));
  // A driver too old to tell is asked again, as one is that failed: neither costs more than it did.
  if (capabilities.size > 0) memory.capabilities = capabilities;
  const topology = document.gpus.length < 2 ? "" : (memory.topology ?? (await textOf(smi.run(["topo", "-m"], how))));
  if (topology !== "") memory.topology = topology;
  const listing = hasMig || hasHole ? await textOf(smi.run(["-L"], how)) : "";
  return inventoryOf(document, { capabilities, topology, listing });
}

async function textOf(run: ReturnType<Smi["run"]>): Promise<string> {
  const result = await run;
  return result.ok ? result.stdout : "";
}

/** The inventory a document and its companions make. Pure. */
export function inventoryOf(document: SmiDocument, beside: Beside): Inventory {
  const { driverVersion, cudaVersion, attachedGpus, truncated } = document;
  const listed = readListing(beside.listing);
  const problems: SmiProblem[] = [];
  const gpus: Gpu[] = [];
  const samples: GpuTelemetry[] = [];
  const raw = new Map<string, ReadonlyMap<string, string>>();
  const processes = new Map<string, SmiProcess[]>();
  const links = readTopology(beside.topology);
  const uuidOf = ({ index, values }: SmiGpu) => uuidValue(values.get("uuid")) ?? listed[index]?.uuid;
  const uuids = new Map(document.gpus.map((smiGpu) => [smiGpu.index, uuidOf(smiGpu)]));
  for (const smiGpu of document.gpus) {
    const { index } = smiGpu;
    const uuid = uuids.get(index);
    if (uuid === undefined) {
      problems.push({
        code: "gpu_lost",
        message: `GPU ${index} at ${smiGpu.id} tells no UUID: power-cycle the machine`,
      });
      continue;
    }
    if (processes.has(uuid)) {
      problems.push({
        code: "unreadable",
        message: `GPU ${index} at ${smiGpu.id} tells the UUID of another, ${uuid}: it is not lent`,
      });
      continue;
    }
    const versions = { ...(driverVersion && { driverVersion }), ...(cudaVersion && { cudaVersion }) };
    const gpu = gpuOf(smiGpu, {
      index,
      uuid,
      capability: beside.capabilities.get(uuid),
      mig: listed.find((entry) => entry?.uuid === uuid)?.mig ?? [],
    });
    const instances = gpu.mig?.instances ?? [];
    gpus.push({
      ...gpu,
      ...versions,
      links: (links.get(index) ?? []).flatMap(({ index: other, ...link }) => {
        const gpu = uuids.get(other);
        return gpu === undefined ? [] : [{ gpu, ...link }];
      }),
    });
    processes.set(
      uuid,
      smiGpu.processes.flatMap((values) => processOf(values, instances)),
    );
    raw.set(uuid, smiGpu.values);
    const sample = sampleOf(smiGpu, uuid, instances);
    if (sample !== undefined) samples.push(sample);
  }
  const unreadable: SmiProblem | undefined = truncated
    ? {
        code: "unreadable",
        message: `nvidia-smi's answer breaks off after ${document.gpus.length} GPUs; it is asked again`,
      }
    : undefined;
  if (unreadable !== undefined) problems.push(unreadable);
  else if (attachedGpus !== undefined && attachedGpus > document.gpus.length) {
    problems.push({
      code: "gpu_lost",
      message: `the driver has ${attachedGpus} GPUs attached, ${document.gpus.length} answer`,
    });
  } else if (document.gpus.length === 0) {
    problems.push({
      code: "no_devices",
      message: "nvidia-smi works and sees no GPU: check that the board is seated, powered and listed by lspci",
    });
  }
  return {
    gpus,
    problems,
    ...(driverVersion !== undefined && { driverVersion }),
    ...(cudaVersion !== undefined && { cudaVersion }),
    processes,
    samples,
    raw,
    rows: document.gpus.length,
    ...(unreadable !== undefined && { failed: unreadable }),
  };
}

interface Known {
  index: number;
  uuid: string;
  capability: string | undefined;
  mig: readonly { profile: string; uuid: string }[];
}

function gpuOf(smiGpu: SmiGpu, { index, uuid, capability, mig }: Known): Gpu {
  const value = (path: string) => absentValue(smiGpu.values.get(path));
  const name = value("product_name") ?? "unknown NVIDIA GPU";
  const computeCapability = capability ?? capabilityOfName(name);
  const tensorCores = tensorCoresOf(computeCapability, name);
  const vramMiB = leadingCount(value("fb_memory_usage/total") ?? value("memory_usage/total"));
  const health = healthOf(smiGpu);
  const property = (name: string) => propertyOf(name, smiGpu.values);
  const busId = value("pci/pci_bus_id") ?? smiGpu.id;
  const link = {
    linkGeneration: leadingCount(value("pci/pci_gpu_link_info/pcie_gen/current_link_gen")),
    linkGenerationMax: leadingCount(value("pci/pci_gpu_link_info/pcie_gen/max_link_gen")),
    linkWidth: leadingCount(value("pci/pci_gpu_link_info/link_widths/current_link_width")),
    linkWidthMax: leadingCount(value("pci/pci_gpu_link_info/link_widths/max_link_width")),
  };
  return {
    index,
    uuid,
    vendor: "nvidia",
    name,
    ...present({
      architecture: value("product_architecture"),
      computeCapability,
      vramMiB,
      // Their nvidia-smi tells no memory of the GPU's own: it is the host's.
      unified: vramMiB === undefined && /\bGB10\b|\bOrin\b|\bThor\b|\bXavier\b|\bTegra\b/.test(name) ? true : undefined,
      tensorCores,
      vbiosVersion: value("vbios_version"),
      powerLimitWatts: property("enforced.power.limit") ?? property("power.limit"),
      powerLimitDefaultWatts: property("power.default_limit"),
      smClockLimitMHz: firstCount(value, ["applications_clocks/sm_clock", "applications_clocks/graphics_clock"]),
      smClockMaxMHz: firstCount(value, ["max_clocks/sm_clock", "max_clocks/graphics_clock"]),
      eccEnabled: enabled(value("ecc_mode/current_ecc")),
      persistenceMode: enabled(value("persistence_mode")),
      displayActive: enabled(value("display_active")),
      computeMode: value("compute_mode"),
      mig: migOf(smiGpu, mig),
    }),
    pci: { busId, ...present(link) },
    links: [],
    health,
    allocatable: health.status !== "failed",
  };
}

function firstFigure(value: (path: string) => string | undefined, paths: readonly string[]): number | undefined {
  for (const path of paths) {
    const number = leadingFigure(value(path));
    if (number !== undefined) return number;
  }
  return undefined;
}

function firstCount(value: (path: string) => string | undefined, paths: readonly string[]): number | undefined {
  const number = firstFigure(value, paths);
  return number === undefined ? undefined : Math.round(number);
}

function migOf({ values, migDevices }: SmiGpu, listed: Known["mig"]): Gpu["mig"] {
  const mode = absentValue(values.get("mig_mode/current_mig"));
  if (mode !== "Enabled" && mode !== "Disabled") return undefined;
  const instances: MigInstance[] = migDevices.flatMap((device, position) => {
    const entry = listed[position];
    const vramMiB = leadingCount(absentValue(device.get("fb_memory_usage/total")));
    const gpuInstanceId = leadingCount(device.get("gpu_instance_id"));
    const computeInstanceId = leadingCount(device.get("compute_instance_id"));
    // The XML of no driver tells the UUID or the profile; an instance that `-L` does not list cannot be given to anybody.
    if (entry === undefined || gpuInstanceId === undefined || computeInstanceId === undefined) return [];
    return [{ ...entry, vramMiB: vramMiB ?? 0, gpuInstanceId, computeInstanceId }];
  });
  return { enabled: mode === "Enabled", instances };
}

/** `-L`: GPUs by index, each with its MIG devices in order. */
function readListing(text: string): { uuid?: string; mig: { profile: string; uuid: string }[] }[] {
  const gpus: { uuid?: string; mig: { profile: string; uuid: string }[] }[] = [];
  for (const line of text.split("\n")) {
    const [, index, told] = /^GPU (\d+): .*\(UUID: (GPU-[^)]+)\)/.exec(line) ?? [];
    const uuid = uuidValue(told);
    if (index !== undefined && uuid !== undefined && Number(index) < 1024) gpus[Number(index)] = { uuid, mig: [] };
    const [, profile, mig] = /^\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)/.exec(line) ?? [];
    const instance = uuidValue(mig);
    if (profile !== undefined && instance !== undefined) gpus.at(-1)?.mig.push({ profile, uuid: instance });
  }
  return gpus;
}

function processOf(values: ReadonlyMap<string, string>, instances: readonly MigInstance[]): SmiProcess[] {
  const pid = leadingCount(values.get("pid"));
  if (pid === undefined) return [];
  const vramUsedMiB = leadingCount(absentValue(values.get("used_memory")));
  const type = PROCESS_TYPES.get(values.get("type") ?? "");
  const mig = migUuid(values, instances);
  return [
    {
      pid,
      name: values.get("process_name") ?? "",
      ...(vramUsedMiB !== undefined && { vramUsedMiB }),
      ...(type !== undefined && { type }),
      ...(mig !== undefined && { migUuid: mig }),
    },
  ];
}

/** A client of MPS (`M+C`) computes as others do. */
const PROCESS_TYPES: ReadonlyMap<string, NonNullable<SmiProcess["type"]>> = new Map([
  ["C", "C"],
  ["G", "G"],
  ["C+G", "C+G"],
  ["M+C", "C"],
  ["M+C+G", "C+G"],
]);

function enabled(text: string | undefined): boolean | undefined {
  return text === "Enabled" ? true : text === "Disabled" ? false : undefined;
}

function present<T extends object>(object: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}
