import type { HostInfo } from "../protocol/agent-frames.ts";
import { withoutBlanks } from "./inventory.ts";

/** What the machine and its system are called. */
export type HostDetails = Pick<HostInfo, "os" | "kernel" | "cpuModel">;

/**
 * What systeminformation tells, which also knows the names that ARM kernels tell as numbers. It starts shells and takes 600 KiB of
 * code: the daemon has it read by a process of its own.
 */
export async function hostDetails(): Promise<HostDetails> {
  const { default: systeminformation } = await import("systeminformation");
  const [system, cpu] = await Promise.all([systeminformation.osInfo(), systeminformation.cpu()]);
  return withoutBlanks({
    os: [system.distro, system.release].filter((part) => part !== "" && part !== "unknown").join(" "),
    kernel: system.kernel,
    cpuModel: [cpu.manufacturer, cpu.brand].filter((part) => part !== "").join(" "),
  });
}
