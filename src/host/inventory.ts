import * as os from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { HostInfo } from "../protocol/frames.ts";
import { diskTotalMiB } from "./sampler.ts";

const MIB = 1024 * 1024;

/** systeminformation starts processes of its own; a machine where one of them hangs is advertised without its answers. */
const INVENTORY_TIMEOUT_MS = 5_000;

/** Node's architecture names as image manifests write them (GOARCH). Others are the same in both. */
const GO_ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386", ppc64: "ppc64le" };

/**
 * What the machine is made of; read once at start. `diskPath` is where workloads' data lies. Never throws: what
 * cannot be found out is absent.
 */
export async function hostInventory(options: { diskPath?: string; timeoutMs?: number } = {}): Promise<HostInfo> {
  const { diskPath = "/", timeoutMs = INVENTORY_TIMEOUT_MS } = options;
  const cpus = os.cpus();
  const basic = withoutBlanks({
    hostname: os.hostname(),
    os: os.type(),
    kernel: os.release(),
    cpuModel: cpus[0]?.model,
  });
  const timer = new AbortController();
  const late = sleep(timeoutMs, {}, { signal: timer.signal }).catch(() => ({}));
  const better = await Promise.race([detailed().catch(() => ({})), late]);
  timer.abort();
  const disk = diskTotalMiB(diskPath);
  return {
    ...basic,
    ...better,
    architecture: GO_ARCHITECTURES[os.arch()] ?? os.arch(),
    cpus: Math.max(1, cpus.length),
    memoryMiB: Math.floor(os.totalmem() / MIB),
    ...(disk !== undefined && { diskTotalMiB: disk }),
  };
}

type Names = Pick<HostInfo, "hostname" | "os" | "kernel" | "cpuModel">;

/** Loaded only here: it is large, and needed once. */
async function detailed(): Promise<Names> {
  const { default: systeminformation } = await import("systeminformation");
  const [system, cpu] = await Promise.all([systeminformation.osInfo(), systeminformation.cpu()]);
  return withoutBlanks({
    os: [system.distro, system.release].filter((part) => part !== "" && part !== "unknown").join(" "),
    kernel: system.kernel,
    cpuModel: [cpu.manufacturer, cpu.brand].filter((part) => part !== "").join(" "),
  });
}

function withoutBlanks(names: Record<keyof Names | string, string | undefined>): Names {
  const known = Object.entries(names).flatMap(([key, value]) => {
    const text = value?.trim() ?? "";
    return text === "" ? [] : [[key, text] as const];
  });
  return Object.fromEntries(known);
}
