import * as os from "node:os";
import type { HostInfo } from "../protocol/agent-frames.ts";
import type { HostDetails } from "./details.ts";
import { readText } from "./read-text.ts";
import { diskTotalMiB } from "./sampler.ts";

const MIB = 1024 * 1024;

/** Node's architecture names as image manifests write them (GOARCH). Others are the same in both. */
const GO_ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386", ppc64: "ppc64le" };

/**
 * What the machine is made of, as far as it can be read at once; `hostDetails` knows more. `diskPath` is where workloads' data lies. Never
 * throws: what cannot be found out is absent. The others are for tests: os-release(5), and what Node tells of the CPUs.
 */
export function hostInventory(
  options: { diskPath?: string; osRelease?: string; cpus?: readonly { model: string }[] } = {},
): HostInfo {
  const { diskPath = "/", osRelease = "/etc/os-release", cpus = os.cpus() } = options;
  const disk = diskTotalMiB(diskPath);
  return {
    ...withoutBlanks({
      hostname: os.hostname(),
      os: distributionOf(readText(osRelease) ?? "") ?? os.type(),
      kernel: os.release(),
      cpuModel: modelOf(cpus[0]?.model),
    }),
    architecture: GO_ARCHITECTURES[os.arch()] ?? os.arch(),
    cpus: Math.max(1, cpus.length),
    memoryMiB: Math.floor(os.totalmem() / MIB),
    ...(disk !== undefined && { diskTotalMiB: disk }),
  };
}

/** os-release(5): "Debian GNU/Linux 12". */
export function distributionOf(text: string): string | undefined {
  const fieldOf = (field: string) => {
    // Values may be quoted as in a shell; names of distributions hold nothing that would need unescaping.
    const value = new RegExp(`^${field}=(["']?)(.*)\\1$`, "m").exec(text)?.[2];
    return value?.trim() || undefined;
  };
  const name = fieldOf("NAME");
  const version = fieldOf("VERSION_ID");
  return name === undefined ? undefined : [name, version].filter((part) => part !== undefined).join(" ");
}

/** Without the marks lawyers put there; undefined where it is none. */
function modelOf(text: string | undefined): string | undefined {
  const model = (text ?? "").replace(/\((R|TM)\)/gi, "").replace(/\s+/g, " ");
  // Node's word for a CPU whose kernel tells no name.
  return model.trim() === "unknown" ? undefined : model.trim() || undefined;
}

/** Without those that say nothing. */
export function withoutBlanks(
  names: Record<keyof HostDetails | "hostname", string | undefined>,
): HostDetails & Pick<HostInfo, "hostname">;
export function withoutBlanks(names: Record<keyof HostDetails, string | undefined>): HostDetails;
export function withoutBlanks(names: Record<string, string | undefined>): HostDetails {
  const known = Object.entries(names).flatMap(([key, value]) => {
    const text = value?.trim() ?? "";
    return text === "" ? [] : [[key, text] as const];
  });
  return Object.fromEntries(known);
}
