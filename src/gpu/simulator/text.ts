import type { Driver } from "./driver.ts";
import { handleFailureLine } from "./faults.ts";
import type { SimulatedGpu } from "./scenario.ts";
import type { GpuState } from "./state.ts";

/** `nvidia-smi -L`: also lists what is lost. */
export function gpuList(states: readonly GpuState[], driver: Driver): string {
  return states
    .map(({ gpu, missing }) => {
      if (missing === "handle") return `${handleFailureLine(driver, gpu)}\n`;
      const devices = (gpu.mig ?? []).map(
        (device) =>
          `  MIG ${device.profileName.padEnd(12)}Device ${String(device.index).padStart(2)}: (UUID: ${device.uuid})\n`,
      );
      return `${gpuLine(gpu)}${devices.join("")}`;
    })
    .join("");
}

function gpuLine(gpu: SimulatedGpu): string {
  return `GPU ${gpu.index}: ${gpu.profile.name} (UUID: ${gpu.uuid})\n`;
}

/** Threads of the simulated host's processors, half of them on each of two nodes when there are more than two GPUs. */
const threads = 128;

/** `nvidia-smi topo -m`, escapes included: nvidia-smi underlines the header whether or not it writes to a terminal. */
export function topology(gpus: readonly SimulatedGpu[], driver: Driver): string {
  const numaColumn = driver.major >= 530;
  const nodes = gpus.length > 2 ? 2 : 1;
  const nodeOf = (gpu: SimulatedGpu) => Math.floor((gpu.index * nodes) / gpus.length);
  const header = [
    ...gpus.map((gpu) => `GPU${gpu.index}`),
    "CPU Affinity",
    "NUMA Affinity",
    ...(numaColumn ? ["GPU NUMA ID"] : []),
  ];
  const rows = gpus.map((gpu) => {
    const links = gpus.map((other) =>
      other === gpu ? " X " : linkBetween(gpu, other, { count: gpus.length, near: nodeOf(gpu) === nodeOf(other) }),
    );
    const first = (nodeOf(gpu) * threads) / nodes;
    const affinity = `${first}-${first + threads / nodes - 1}`;
    return [`GPU${gpu.index}`, ...links, affinity, nodeOf(gpu), ...(numaColumn ? ["", "N/A"] : [])].join("\t");
  });
  return `\t\u001b[4m${header.join("\t")}\u001b[0m\n${rows.join("\n")}\n\n${legend}`;
}

function linkBetween(
  a: SimulatedGpu,
  b: SimulatedGpu,
  { count, near }: { readonly count: number; readonly near: boolean },
): string {
  const links = a.profile.nvlink?.links;
  // A GPU cut into instances has no peers. Without a switch the links are shared out among three neighbours.
  if (links !== undefined && a.profile === b.profile && a.mig === undefined && b.mig === undefined) {
    return `NV${a.profile.fabric || count > 4 ? links : Math.floor(links / 3)}`;
  }
  if (!near) return "SYS";
  return a.profile.serial ? "NODE" : "PHB";
}

const legend = `Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks
`;

/** `nvidia-smi nvlink -s`. */
export function nvlinkStatus(gpus: readonly SimulatedGpu[]): string {
  return gpus
    .map((gpu) => {
      const { nvlink } = gpu.profile;
      if (gpu.mig !== undefined) return `${gpuLine(gpu)}Nvlink queries are not supported for Devices in MIG mode\n`;
      if (nvlink === undefined) return `${gpuLine(gpu)}Device does not have or support Nvlink\n`;
      const links = Array.from(
        { length: nvlink.links },
        (_, at) => `\t Link ${at}: ${nvlink.gigabytesPerSecond} GB/s\n`,
      );
      return `${gpuLine(gpu)}${links.join("")}`;
    })
    .join("");
}

/** `nvidia-smi mig -lgi`. */
export function migInstances(gpus: readonly SimulatedGpu[]): string {
  if (gpus.every((gpu) => gpu.mig === undefined)) return "No MIG-enabled devices found.\n";
  const devices = gpus.flatMap((gpu) => (gpu.mig ?? []).map((device) => ({ gpu, device })));
  if (devices.length === 0) return "No GPU instances found: Not Found\n";
  const rule = `+${"-".repeat(55)}+\n`;
  const line = (content: string) => `|${content.padEnd(55)}|\n`;
  const rows = devices.map(({ gpu, device }) => {
    const placement = `${device.placement[0]}:${device.placement[1]}`;
    return (
      line(
        `${String(gpu.index).padStart(4)}  MIG ${device.profileName.padEnd(14)}${String(device.profile.profileId).padStart(5)}` +
          `${String(device.gpuInstanceId).padStart(9)}${placement.padStart(13)}`,
      ) + rule
    );
  });
  return (
    rule +
    line(" GPU instances:") +
    line(" GPU   Name             Profile  Instance   Placement") +
    line("                          ID       ID       Start:Size") +
    `|${"=".repeat(55)}|\n${rows.join("")}`
  );
}

/** `nvidia-smi --version`. */
export function versions(driver: Driver): string {
  return (
    `NVIDIA-SMI version  : ${driver.version}\nNVML version        : ${driver.nvml}\n` +
    `DRIVER version      : ${driver.version}\nCUDA Version        : ${driver.cuda}\n`
  );
}

/** `nvidia-smi -h`: what is simulated, in this project's own words. */
export function help(driver: Driver): string {
  return `NVIDIA System Management Interface -- v${driver.version}

Simulated by gpunode: no GPU is behind these answers.

    -h,   --help                Print usage information and exit.
          --version             Print version information and exit.
    -L,   --list-gpus           List the GPUs and MIG devices.
    <no arguments>              Show a summary of the GPUs.
    -q,   --query               With -x: everything, as XML.
    -x,   --xml-format          Produce XML output.
          --query-gpu           Values of GPUs. Call --help-query-gpu for more info.
          --query-compute-apps  Compute processes. Call --help-query-compute-apps for more info.
          --query-remapped-rows Remapped rows. Call --help-query-remapped-rows for more info.
    -i,   --id=                 Only these GPUs: index, UUID, serial or bus id, comma separated.
          --format=             csv, with noheader and nounits.
    -l,   --loop=               Repeat every so many seconds.
    -lms, --loop-ms=            Repeat every so many milliseconds.
    topo -m                     How the GPUs are connected.
    nvlink -s                   NVLink status.
    mig -lgi                    GPU instances.
`;
}
